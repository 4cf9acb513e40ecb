//! Tool names, as in the first segment of a path and in a Redis key.

use std::fmt;

/// Longest tool name, in bytes.
pub const MAX_TOOL_NAME_LEN: usize = 255;

/// A tool's name: UTF-8, no `/`, no control character, at most [`MAX_TOOL_NAME_LEN`] bytes. The empty name belongs to the
/// path `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolName(Box<str>);

/// Why bytes are not a tool name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolNameError {
    /// Longer than [`MAX_TOOL_NAME_LEN`].
    #[error("tool name has {0} bytes, expected at most {MAX_TOOL_NAME_LEN}")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("tool name {0:?} is not UTF-8")]
    NotUtf8(String),
    /// A character that cannot be in a path segment or would break a log line.
    #[error("tool name {name:?} contains {found:?}, expected no slash and no control character")]
    Forbidden {
        /// The whole name.
        name: String,
        /// The first such character.
        found: char,
    },
}

impl ToolName {
    /// Checks a name.
    ///
    /// # Errors
    /// Every [`ToolNameError`].
    pub fn try_new(bytes: &[u8]) -> Result<Self, ToolNameError> {
        if bytes.len() > MAX_TOOL_NAME_LEN {
            return Err(ToolNameError::TooLong(bytes.len()));
        }
        let Ok(name) = std::str::from_utf8(bytes) else {
            return Err(ToolNameError::NotUtf8(bytes.escape_ascii().to_string()));
        };
        match name.chars().find(|&c| c == '/' || c.is_control()) {
            Some(found) => Err(ToolNameError::Forbidden { name: name.to_owned(), found }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_limit_is_exact() {
        assert!(ToolName::try_new(&[b'a'; MAX_TOOL_NAME_LEN]).is_ok());
        assert_eq!(ToolName::try_new(&[b'a'; 256]), Err(ToolNameError::TooLong(256)));
    }

    #[test]
    fn invalid_names_are_refused() {
        for bad in [&b"a/b"[..], b"a\nb", b"\0", b"\x7f", b"\xff", "\u{85}".as_bytes()] {
            assert!(ToolName::try_new(bad).is_err(), "{bad:?}");
        }
        for good in ["", "hello", "a.b", "tool-1", "wîki", ".."] {
            let name = ToolName::try_new(good.as_bytes()).unwrap();
            assert_eq!((name.as_str(), name.to_string()), (good, good.to_owned()));
            assert_eq!(format!("{name:?}"), format!("{good:?}"));
        }
    }
}
