//! Reserved domains: only operators may map them and the domains below them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ownership::base_of;
use crate::route::{Domain, DomainError};

/// The reserved domains; each reserves everything below it too.
#[derive(Clone, Debug, Default)]
pub struct Reserved(Vec<Domain>);

/// Why the reserved domains cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReservedError {
    #[error("{error} while reading --reserved-domains {path:?}")]
    File { path: PathBuf, error: io::Error },
    #[error("invalid --reserved-domains {path:?}, line {line}: {error}")]
    Line { path: PathBuf, line: usize, error: ReservedNameError },
}

/// Why a name cannot be reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservedNameError {
    #[error(transparent)]
    Syntax(#[from] DomainError),
    /// An address or a wildcard.
    #[error("domain {0:?} cannot be reserved, expected e.g. \"toolforge.org\", which reserves everything below it too")]
    NoName(Domain),
}

/// Parses one reserved domain.
///
/// # Errors
/// Not a host name, an address, or a wildcard.
pub fn parse_reserved(text: &str) -> Result<Domain, ReservedNameError> {
    let domain = Domain::normalize(text)?;
    if domain.is_wildcard() || domain.is_address() { Err(ReservedNameError::NoName(domain)) } else { Ok(domain) }
}

impl Reserved {
    /// Collects `names` and those of a file with one name per line and `#` comments.
    ///
    /// # Errors
    /// The file cannot be read, or a line is invalid.
    pub fn read(names: Vec<Domain>, path: Option<&Path>) -> Result<Self, ReservedError> {
        let mut all = names;
        let Some(path) = path else { return Ok(Self(all)) };
        let text = fs::read_to_string(path).map_err(|error| ReservedError::File { path: path.to_owned(), error })?;
        for (number, line) in text.lines().enumerate() {
            let name = line.split('#').next().unwrap_or_default().trim();
            if !name.is_empty() {
                let wrong = |error| ReservedError::Line { path: path.to_owned(), line: number + 1, error };
                all.push(parse_reserved(name).map_err(wrong)?);
            }
        }
        Ok(Self(all))
    }

    /// Whether a canonical domain is reserved, or is a wildcard that matches a reserved domain.
    pub fn covers(&self, domain: &str) -> bool {
        let base = base_of(domain);
        let is_below = |name: &str| base.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let answers_for =
            |name: &str| base.len() < domain.len() && name.split_once('.').is_some_and(|(_, parent)| parent == base);
        self.0.iter().any(|reserved| is_below(reserved.as_str()) || answers_for(reserved.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_domains_cover_everything_below_them() {
        let names = ["Toolforge.org.", "internal", "login.example.org"].map(|name| parse_reserved(name).unwrap());
        let reserved = Reserved::read(names.to_vec(), None).unwrap();
        for (domain, want) in [
            ("toolforge.org", true),
            ("*.toolforge.org", true),
            ("a.b.toolforge.org", true),
            ("db.internal", true),
            ("login.example.org", true),
            ("*.example.org", true),
            ("example.org", false),
            ("*.a.example.org", false),
            ("mytoolforge.org", false),
            ("toolforge.org.example", false),
        ] {
            assert_eq!(reserved.covers(domain), want, "{domain}");
        }
        assert!(!Reserved::default().covers("toolforge.org"));
        for name in ["*.toolforge.org", "10.0.0.1", "", "a b"] {
            assert!(parse_reserved(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn files_have_one_name_per_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserved");
        fs::write(&path, "# ours\n\ntoolforge.org # all of it\n  wmcloud.org\n").unwrap();
        let reserved = Reserved::read(vec![], Some(&path)).unwrap();
        assert!(reserved.covers("a.toolforge.org") && reserved.covers("wmcloud.org") && !reserved.covers("ours"));
        fs::write(&path, "a.org\n*.b.org\n").unwrap();
        let error = Reserved::read(vec![], Some(&path)).unwrap_err().to_string();
        assert!(error.contains("line 2: domain \"*.b.org\" cannot be reserved"), "{error}");
    }
}
