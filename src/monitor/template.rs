//! The command that restarts a tool: words first, then what is put into them.

use std::fmt;

use super::account::Account;
use super::manifest::{Manifest, Word};

/// What the old monitor ran.
pub const DEFAULT: &str =
    "sudo -i -u {user} /usr/bin/webservice --backend=gridengine --release {release} {type} restart";

/// Words with `{tool}`, `{user}`, `{release}` and `{type}` in them. What stands for these never becomes a word of its own,
/// and never reaches a shell unless the operator's words are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCommand(Vec<String>);

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
        for word in &words {
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
        Ok(Self(words))
    }

    /// Whether it takes a release.
    pub fn needs_release(&self) -> bool {
        self.0.iter().any(|word| word.contains("{release}"))
    }

    /// The words for one tool. `release` is for a manifest that names none.
    pub fn words(&self, tool: &str, account: &Account, manifest: &Manifest, release: Option<&Word>) -> Vec<String> {
        let release = manifest.release.as_ref().or(release).map_or("", Word::as_str);
        let fill = |word: &String| {
            // None of these has a brace in it, so that none is taken for another.
            let word = word.replace("{tool}", tool).replace("{user}", &account.name);
            word.replace("{release}", release).replace("{type}", manifest.web.as_str())
        };
        self.0.iter().map(fill).collect()
    }
}

impl fmt::Display for StartCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
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
        let want =
            "sudo -i -u tools.hello /usr/bin/webservice --backend=gridengine --release bookworm lighttpd restart";
        assert_eq!(words(DEFAULT), want.split(' ').collect::<Vec<_>>());
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
        for text in ["", "  ", "{tool} a", "x {toll}", "x {tool", "x {}", "x {{tool}}", "x a{user"] {
            assert!(StartCommand::parse(text).is_err_and(|error| error.contains("expected")), "{text}");
        }
    }
}
