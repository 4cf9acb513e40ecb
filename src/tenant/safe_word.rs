//! Words that are safe in a command line.

use std::fmt;

/// The longest word, in bytes.
const MAX_LEN: usize = 64;

/// Text from a tenant that is safe in a command line: `[a-z0-9][a-z0-9._+-]*`, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeWord(String);

impl SafeWord {
    /// `None` if the text is not safe.
    pub fn try_new(text: &str) -> Option<Self> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let rest = |byte: u8| first(byte) || b"._+-".contains(&byte);
        let is_word = text.len() <= MAX_LEN && text.bytes().next().is_some_and(first) && text.bytes().all(rest);
        is_word.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SafeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
