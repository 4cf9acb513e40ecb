//! The command that restarts a tool: split into words first, placeholders replaced afterwards.

use std::fmt;

use super::begin_marker;
use super::manifest::Manifest;
use crate::tenant::{Account, SafeWord};

/// The command of the old monitor, with `{begin}`.
pub const DEFAULT: &str =
    "sudo -i -u {user} {begin} /usr/bin/webservice --backend=gridengine --release {release} {type} restart";
/// The word before the tool's own command.
const BEGIN: &str = "{begin}";

/// Words with the placeholders `{tool}`, `{user}`, `{release}` and `{type}`, and perhaps `{begin}` as a word. A value is never
/// split into words, and reaches no shell unless the operator's command is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCommand {
    words: Vec<String>,
    /// The words that replace `{begin}`. Determined once: the program's file may be replaced while this process runs.
    begin: [String; 2],
}

impl StartCommand {
    /// Splits at white space, and checks the placeholders.
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
                        "invalid word {word:?}, expected {{tool}}, {{user}}, {{release}} or {{type}} as placeholders"
                    ));
                }
                rest = &after[name.len() + 1..];
            }
        }
        Ok(Self { words, begin: begin_marker::words() })
    }

    /// Whether `{begin}` marks the tool's own command.
    pub fn has_begin_marker(&self) -> bool {
        self.words.iter().any(|word| word == BEGIN)
    }

    /// Whether `{release}` is used.
    pub fn needs_release(&self) -> bool {
        self.words.iter().any(|word| word.contains("{release}"))
    }

    /// The words for one tool. `release` is the default for manifests without one.
    pub fn words(&self, tool: &str, account: &Account, manifest: &Manifest, release: Option<&SafeWord>) -> Vec<String> {
        let release = manifest.release.as_ref().or(release).map_or("", SafeWord::as_str);
        let fill = |word: &String| {
            // No value contains a brace, so no value is mistaken for a placeholder.
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
        let bookworm = SafeWord::try_new("bookworm");
        let manifest = Manifest { web: SafeWord::try_new("lighttpd").unwrap(), release: None };
        StartCommand::parse(text).unwrap().words("hello", &account, &manifest, bookworm.as_ref())
    }

    #[test]
    fn placeholders_are_replaced() {
        let want = "sudo -i -u tools.hello PROGRAM begin-start /usr/bin/webservice --backend=gridengine --release \
                    bookworm lighttpd restart";
        let program = std::env::current_exe().unwrap().display().to_string();
        let want: Vec<_> = want.split(' ').map(|word| if word == "PROGRAM" { &*program } else { word }).collect();
        assert_eq!(words(DEFAULT), want);
        assert!(StartCommand::parse(DEFAULT).unwrap().has_begin_marker());
        assert!(!StartCommand::parse("x {tool}").unwrap().has_begin_marker());
        assert_eq!(words("x --job={type}-{tool} }"), ["x", "--job=lighttpd-hello", "}"]);
    }

    #[test]
    fn release_of_the_manifest_precedes_the_default() {
        let account = Account { name: "tools.hello".into(), uid: 50_001, gid: 50_001 };
        let word = |text| SafeWord::try_new(text);
        let manifest = Manifest { web: word("a").unwrap(), release: word("bullseye") };
        let command = StartCommand::parse("x {release}").unwrap();
        assert_eq!(command.words("hello", &account, &manifest, word("bookworm").as_ref()), ["x", "bullseye"]);
    }

    #[test]
    fn invalid_placeholders_are_refused() {
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
