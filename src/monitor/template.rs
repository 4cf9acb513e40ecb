//! The command that restarts a tool: words first, then what is put into them.

use std::fmt;

use super::account::Account;
use super::begin;
use super::manifest::{Manifest, Word};

/// What the old monitor ran, and what tells that the login is over.
pub const DEFAULT: &str =
    "sudo -i -u {user} {begin} /usr/bin/webservice --backend=gridengine --release {release} {type} restart";
/// A word of its own, where the tool's own command begins.
const BEGIN: &str = "{begin}";

/// Words with `{tool}`, `{user}`, `{release}` and `{type}` in them, and one may be `{begin}`. What stands for these never becomes a
/// word of its own, and never reaches a shell unless the operator's words are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCommand {
    words: Vec<String>,
    /// What stands for `{begin}`. Asked for once: the program's file may be replaced while this process runs.
    begin: [String; 2],
}

impl StartCommand {
    /// Splits at white space.
    ///
    /// # Errors
    /// No word, or a `{...}` that stands for nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() || words[0].contains('{') {
            return Err(format!("invalid command {text:?}, expected a program and its arguments, e.g. {DEFAULT:?}"));
        }
        if words.iter().filter(|word| *word == BEGIN).count() > 1 || words.last().is_some_and(|word| word == BEGIN) {
            return Err(format!("invalid command {text:?}, expected {BEGIN} once, before the tool's own command"));
        }
        for word in words.iter().filter(|word| *word != BEGIN) {
            let mut rest = word.as_str();
            while let Some((_, after)) = rest.split_once('{') {
                let name = after.split('}').next().unwrap_or_default();
                if !["tool", "user", "release", "type"].contains(&name) || !after.contains('}') {
                    return Err(format!(
                        "invalid word {word:?}, expected {{tool}}, {{user}}, {{release}} or {{type}} in it"
                    ));
                }
                rest = &after[name.len() + 1..];
            }
        }
        Ok(Self { words, begin: begin::words() })
    }

    /// Whether it tells when the tool's own command begins.
    pub fn tells_begin(&self) -> bool {
        self.words.iter().any(|word| word == BEGIN)
    }

    /// Whether it takes a release.
    pub fn needs_release(&self) -> bool {
        self.words.iter().any(|word| word.contains("{release}"))
    }

    /// The words for one tool. `release` is for a manifest that names none.
    pub fn words(&self, tool: &str, account: &Account, manifest: &Manifest, release: Option<&Word>) -> Vec<String> {
        let release = manifest.release.as_ref().or(release).map_or("", Word::as_str);
        let fill = |word: &String| {
            // None of these has a brace in it, so that none is taken for another.
            let word = word.replace("{tool}", tool).replace("{user}", &account.name);
            word.replace("{release}", release).replace("{type}", manifest.web.as_str())
        };
        let mut words = Vec::with_capacity(self.words.len() + 1);
        for word in &self.words {
            if word == BEGIN { words.extend(self.begin.clone()) } else { words.push(fill(word)) }
        }
        words
    }
}

impl fmt::Display for StartCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let account = Account { name: "tools.hello".into(), uid: 50_001, gid: 50_001 };
        let bookworm = Word::try_new("bookworm");
        let manifest = Manifest { web: Word::try_new("lighttpd").unwrap(), release: None };
        StartCommand::parse(text).unwrap().words("hello", &account, &manifest, bookworm.as_ref())
    }

    #[test]
    fn words_are_filled_in() {
        let want = "sudo -i -u tools.hello PROGRAM begin-start /usr/bin/webservice --backend=gridengine --release \
                    bookworm lighttpd restart";
        let program = std::env::current_exe().unwrap().display().to_string();
        let want: Vec<_> = want.split(' ').map(|word| if word == "PROGRAM" { &*program } else { word }).collect();
        assert_eq!(words(DEFAULT), want);
        assert!(StartCommand::parse(DEFAULT).unwrap().tells_begin());
        assert!(!StartCommand::parse("x {tool}").unwrap().tells_begin());
        assert_eq!(words("x --job={type}-{tool} }"), ["x", "--job=lighttpd-hello", "}"]);
    }

    #[test]
    fn the_manifests_release_comes_first() {
        let account = Account { name: "tools.hello".into(), uid: 50_001, gid: 50_001 };
        let word = |text| Word::try_new(text);
        let manifest = Manifest { web: word("a").unwrap(), release: word("bullseye") };
        let command = StartCommand::parse("x {release}").unwrap();
        assert_eq!(command.words("hello", &account, &manifest, word("bookworm").as_ref()), ["x", "bullseye"]);
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for text in [
            "",
            "  ",
            "{tool} a",
            "x {toll}",
            "x {tool",
            "x {}",
            "x {{tool}}",
            "x a{user",
            "x {begin}",
            "x {begin} {begin} y",
            "x a{begin} y",
            "{begin} x",
        ] {
            assert!(StartCommand::parse(text).is_err_and(|error| error.contains("expected")), "{text}");
        }
    }
}
