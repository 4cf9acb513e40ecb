//! Public suffixes: any project may map domains below them, none may map a suffix itself, or the wildcard below it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use publicsuffix::{List, Psl};

use crate::route::Domain;

/// The Public Suffix List of Debian's package `publicsuffix`.
pub const DEBIAN_LIST: &str = "/usr/share/publicsuffix/public_suffix_list.dat";
/// Instead of a file: only single labels are protected.
pub const NO_LIST: &str = "none";

/// The protected suffixes: those of a file, and every single label.
#[derive(Clone, Debug, Default)]
pub struct Suffixes(List);

/// Why a file of suffixes is invalid.
#[derive(Debug, thiserror::Error)]
pub enum SuffixesError {
    #[error("{error} while reading --protected-suffixes {path:?}")]
    File { path: PathBuf, error: io::Error },
    #[error(
        "invalid --protected-suffixes {path:?}: {error}, expected the format of the Public Suffix List, e.g. a line \"co.uk\""
    )]
    Format { path: PathBuf, error: publicsuffix::Error },
}

impl Suffixes {
    /// Reads `path`, or Debian's list if `path` is `None` and the list exists; with [`NO_LIST`], protects single labels only.
    /// Returns the path of the list too.
    ///
    /// # Errors
    /// The file cannot be read, or has another format.
    pub fn choose(path: Option<PathBuf>) -> Result<(Self, Option<PathBuf>), SuffixesError> {
        match path {
            Some(path) if path.as_os_str() == NO_LIST => Ok((Self::default(), None)),
            Some(path) => Ok((Self::read(&path)?, Some(path))),
            None if Path::new(DEBIAN_LIST).exists() => {
                Ok((Self::read(Path::new(DEBIAN_LIST))?, Some(DEBIAN_LIST.into())))
            }
            None => Ok((Self::default(), None)),
        }
    }

    /// Reads a file in the format of the Public Suffix List: one rule per line, `*.` for any label, `!` for an exception, `//`
    /// before a comment.
    ///
    /// # Errors
    /// The file cannot be read, or has another format.
    pub fn read(path: &Path) -> Result<Self, SuffixesError> {
        let bytes = fs::read(path).map_err(|error| SuffixesError::File { path: path.to_owned(), error })?;
        Self::parse(&bytes).map_err(|error| SuffixesError::Format { path: path.to_owned(), error })
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, publicsuffix::Error> {
        // The crate ignores rules before the first section; an operator's own list has no sections.
        List::from_bytes(&[b"// BEGIN ICANN DOMAINS\n", bytes].concat()).map(Self)
    }

    /// The public suffix of a domain without `*.`; at least the last label.
    pub fn suffix_of<'d>(&self, base: &'d str) -> &'d str {
        let suffix = self.0.suffix(base.as_bytes()).and_then(|suffix| std::str::from_utf8(suffix.as_bytes()).ok());
        let length = suffix.map_or(0, str::len);
        let known = base.len().checked_sub(length).and_then(|at| base.get(at..)).filter(|suffix| !suffix.is_empty());
        known.unwrap_or_else(|| base.rsplit('.').next().unwrap_or(base))
    }

    /// Whether a domain is a protected suffix, or the wildcard directly below one.
    pub fn protect(&self, domain: &Domain) -> bool {
        let is_suffix =
            |name: &str| self.0.suffix(name.as_bytes()).is_none_or(|suffix| suffix.as_bytes().len() == name.len());
        match domain.as_str().strip_prefix("*.") {
            // The parent is a suffix, or a rule `*.parent` makes every label below it one; no rule has the label `--`.
            Some(parent) => is_suffix(parent) || is_suffix(&format!("--.{parent}")),
            None => is_suffix(domain.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_protected(suffixes: &Suffixes, domain: &str) -> bool {
        suffixes.protect(&Domain::normalize(domain).unwrap())
    }

    #[test]
    fn without_a_file_single_labels_are_protected() {
        for (domain, want) in
            [("org", true), ("*.org", true), ("co.uk", false), ("*.co.uk", false), ("a.org", false), ("*.a.org", false)]
        {
            assert_eq!(is_protected(&Suffixes::default(), domain), want, "{domain}");
        }
    }

    #[test]
    fn rules_are_those_of_the_public_suffix_list() {
        let rules = "// a comment\nuk\nco.uk\n\n*.ck\n!www.ck\n公司.cn\njp\n*.kawasaki.jp\n!city.kawasaki.jp\n";
        let suffixes = Suffixes::parse(rules.as_bytes()).unwrap();
        for (domain, want) in [
            ("uk", true),
            ("co.uk", true),
            ("*.co.uk", true),
            ("a.co.uk", false),
            ("*.a.co.uk", false),
            ("me.uk", false),
            ("anything.ck", true),
            ("*.anything.ck", true),
            ("a.anything.ck", false),
            ("www.ck", false),
            ("xn--55qx5d.cn", true),
            ("a.xn--55qx5d.cn", false),
            ("foo.kawasaki.jp", true),
            ("*.kawasaki.jp", true),
            ("kawasaki.jp", false),
            ("a.foo.kawasaki.jp", false),
            ("city.kawasaki.jp", false),
            ("unlisted", true),
            ("a.unlisted", false),
        ] {
            assert_eq!(is_protected(&suffixes, domain), want, "{domain}");
        }
        for (base, want) in [
            ("a.co.uk", "co.uk"),
            ("b.a.co.uk", "co.uk"),
            ("me.uk", "uk"),
            ("a.b.ck", "b.ck"),
            ("www.ck", "ck"),
            ("a.unlisted", "unlisted"),
            ("unlisted", "unlisted"),
        ] {
            assert_eq!(suffixes.suffix_of(base), want, "{base}");
        }
        assert_eq!(Suffixes::default().suffix_of("a.co.uk"), "uk");
        assert!(Suffixes::parse(b"\xff").is_err() && Suffixes::parse(b"a..b").is_err());
    }

    #[test]
    fn private_section_counts() {
        let list = "// ===BEGIN ICANN DOMAINS===\nio\norg\n// ===END ICANN DOMAINS===\n\
            // ===BEGIN PRIVATE DOMAINS===\ngithub.io\ntoolforge.org\n// ===END PRIVATE DOMAINS===\n";
        let suffixes = Suffixes::parse(list.as_bytes()).unwrap();
        for (domain, want) in [
            ("github.io", true),
            ("*.github.io", true),
            ("a.github.io", false),
            ("toolforge.org", true),
            ("example.org", false),
        ] {
            assert_eq!(is_protected(&suffixes, domain), want, "{domain}");
        }
        assert_eq!(suffixes.suffix_of("b.a.github.io"), "github.io");
    }

    #[test]
    fn none_disables_the_list() {
        let (suffixes, path) = Suffixes::choose(Some(NO_LIST.into())).unwrap();
        assert!(path.is_none() && !is_protected(&suffixes, "github.io"));
        let (suffixes, path) = Suffixes::choose(None).unwrap();
        assert_eq!(path.is_some(), Path::new(DEBIAN_LIST).exists());
        assert_eq!(is_protected(&suffixes, "github.io"), path.is_some());
        assert!(Suffixes::choose(Some("/nowhere".into())).is_err());
    }
}
