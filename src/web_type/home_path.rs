//! A path below a tool's home, as the site's configuration writes it.

use std::fmt;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

/// A file, or with a slash at its end a directory. Never leaves the home by `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomePath(String);

/// A text that is not a path below the home.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid path {0:?}, expected one below the tool's home without \"..\", e.g. \"www/js/package.json\"")]
pub struct HomePathError(String);

impl HomePath {
    /// # Errors
    /// The path is empty or absolute, or has a control character or a part that is empty, `.` or `..`.
    pub fn try_new(text: &str) -> Result<Self, HomePathError> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_part = |part: &str| !matches!(part, "" | "." | "..");
        let is_valid = path.split('/').all(is_part) && !text.contains(char::is_control);
        is_valid.then(|| Self(text.to_owned())).ok_or_else(|| HomePathError(text.to_owned()))
    }

    /// Whether a directory is meant.
    pub fn is_directory(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The same path, of a directory.
    pub fn to_directory(&self) -> Self {
        Self(format!("{}/", self.0.trim_end_matches('/')))
    }

    /// The whole path.
    pub fn below(&self, home: &Path) -> PathBuf {
        home.join(self.0.trim_end_matches('/'))
    }

    /// Whether it is there, and of its kind. A link counts as what it leads to.
    pub fn exists(&self, home: &Path) -> bool {
        fs::metadata(self.below(home)).is_ok_and(|found| self.fits(&found))
    }

    /// Whether this is a directory if one is meant, else a regular file.
    pub fn fits(&self, found: &Metadata) -> bool {
        if self.is_directory() { found.is_dir() } else { found.is_file() }
    }
}

impl fmt::Display for HomePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~/{}", self.0)
    }
}

impl<'de> Deserialize<'de> for HomePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_home() {
        for (text, directory) in
            [("a", false), ("a/", true), ("www/js/package.json", false), (".x", false), ("a b", false)]
        {
            let path = HomePath::try_new(text).unwrap();
            assert_eq!(path.is_directory(), directory, "{text}");
            assert_eq!(path.below(Path::new("/home")), Path::new("/home").join(text.trim_end_matches('/')), "{text}");
        }
        for text in ["", "/", "/etc", "..", "a/../b", "a/..", "./a", "a//b", "a//", "a\nb", "a\0"] {
            let error = HomePath::try_new(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
