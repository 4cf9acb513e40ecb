//! A parent domain that moved: hosts below the old one have the same labels below the new one.

use super::domain::{Domain, DomainError, MAX_DOMAIN_LEN, is_label};
use super::site::{Site, SiteError, path_of};

/// An old domain and the site that replaced it, e.g. `wmflabs.org` and `https://wmcloud.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedDomain {
    old: Domain,
    new: Site,
}

/// Why two texts are no moved domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MovedError {
    /// The old domain is not a host name.
    #[error(transparent)]
    Old(#[from] DomainError),
    /// The old domain is a wildcard or an address; nothing is below it.
    #[error("domain {0:?} has no hosts below it, expected e.g. \"wmflabs.org\"")]
    NoParent(Domain),
    /// The new site is invalid.
    #[error(transparent)]
    New(#[from] SiteError),
    /// Both have the same domain.
    #[error("domain {0:?} moves to itself, expected another domain")]
    Same(Domain),
}

impl MovedDomain {
    /// Checks both domains.
    ///
    /// # Errors
    /// Every [`MovedError`].
    pub fn try_new(old: &str, new: &str) -> Result<Self, MovedError> {
        let old = Domain::normalize(old)?;
        if old.is_wildcard() || old.is_address() {
            return Err(MovedError::NoParent(old));
        }
        let new: Site = new.parse()?;
        if *new.domain() == old { Err(MovedError::Same(old)) } else { Ok(Self { old, new }) }
    }

    /// The domain that moved.
    pub fn old(&self) -> &Domain {
        &self.old
    }

    /// Whether a host is the old domain or below it.
    pub fn has(&self, host: &[u8]) -> bool {
        self.labels(host).is_some()
    }

    /// The labels of a host above the old domain, with a dot at their end; empty for the old domain itself.
    ///
    /// They become part of the target's authority, in which nginx accepts more bytes than a host name has: `@`, `#` and others
    /// would end or change the target's host. Only labels of host names pass.
    fn labels<'h>(&self, host: &'h [u8]) -> Option<&'h [u8]> {
        let labels = host.strip_suffix(self.old.as_str().as_bytes())?;
        let is_below =
            || labels.strip_suffix(b".").is_some_and(|names| names.split(|&byte| byte == b'.').all(is_label));
        (labels.is_empty() || is_below()).then_some(labels)
    }

    /// The host with the same labels below the new domain, written to `buffer`. `None` if it would be too long.
    pub fn new_host<'b>(&self, host: &[u8], buffer: &'b mut [u8; MAX_DOMAIN_LEN]) -> Option<&'b [u8]> {
        let labels = self.labels(host)?;
        let domain = self.new.domain().as_str().as_bytes();
        let new = buffer.get_mut(..labels.len() + domain.len())?;
        let (below, parent) = new.split_at_mut(labels.len());
        below.copy_from_slice(labels);
        parent.copy_from_slice(domain);
        Some(new)
    }

    /// The value of `Location` for a host, for nginx's path, for the URI as sent by the client and for its query. `None` if the
    /// host is not below the old domain.
    pub fn location(&self, host: &[u8], path: &[u8], written: &[u8], query: &[u8]) -> Option<Vec<u8>> {
        Some(self.new.location_below(&[self.labels(host)?], Some(path_of(written)), path, query))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moved() -> MovedDomain {
        MovedDomain::try_new("wmflabs.org", "https://wmcloud.org").unwrap()
    }

    fn new_host(moved: &MovedDomain, host: &[u8]) -> Option<String> {
        let mut buffer = [0; MAX_DOMAIN_LEN];
        moved.new_host(host, &mut buffer).map(|host| String::from_utf8(host.to_vec()).unwrap())
    }

    #[test]
    fn labels_are_kept_below_the_new_domain() {
        for (host, want) in [
            ("a.wmflabs.org", Some("a.wmcloud.org")),
            ("a-1.b_2.c.wmflabs.org", Some("a-1.b_2.c.wmcloud.org")),
            ("wmflabs.org", Some("wmcloud.org")),
            ("xwmflabs.org", None),
            (".wmflabs.org", None),
            ("a..wmflabs.org", None),
            (".a.wmflabs.org", None),
            ("*.wmflabs.org", None),
            ("-a.wmflabs.org", None),
            ("wmflabs.org.evil", None),
            ("evil.example@a.wmflabs.org", None),
            ("evil.example#.wmflabs.org", None),
            ("evil.example?.wmflabs.org", None),
            ("evil.example\\.wmflabs.org", None),
            ("evil.example%2f.wmflabs.org", None),
            ("evil.example:80.wmflabs.org", None),
            ("é.wmflabs.org", None),
            ("[::1]", None),
            ("org", None),
            ("", None),
        ] {
            assert_eq!(new_host(&moved(), host.as_bytes()).as_deref(), want, "{host}");
            assert_eq!(moved().has(host.as_bytes()), want.is_some(), "{host}");
            assert_eq!(moved().location(host.as_bytes(), b"/", b"/", b"").is_some(), want.is_some(), "{host}");
        }
    }

    #[test]
    fn a_new_host_beyond_the_length_of_a_domain_is_refused() {
        let moved = MovedDomain::try_new("a.org", "https://longer.example").unwrap();
        let host = |len: usize| format!("{}.a.org", format!("{}.", "x".repeat(49)).repeat(5).get(..len).unwrap());
        let longest = MAX_DOMAIN_LEN - ".longer.example".len();
        assert_eq!(new_host(&moved, host(longest).as_bytes()).unwrap().len(), MAX_DOMAIN_LEN);
        assert_eq!(new_host(&moved, host(longest + 1).as_bytes()), None);
    }

    #[test]
    fn uri_stays_as_sent_or_is_encoded_again() {
        let moved = MovedDomain::try_new("WMFlabs.org.", "http://wmcloud.org:8080").unwrap();
        for (path, written, query, want) in [
            ("/", "/", "", "/"),
            ("/a b/c", "/a%20b%2Fc?x=%20&y[]=/?", "x=%20&y[]=/?", "/a%20b%2Fc?x=%20&y[]=/?"),
            ("/a", "/./b/..//a?q", "q", "/a?q"),
            ("/a?#%", "/b/../a%3f%23%25", "", "/a%3F%23%25"),
            ("/", "?q", "q", "/?q"),
            ("/\r\nX: y", "/%0d%0aX:%20y", "", "/%0d%0aX:%20y"),
            ("/\\evil.example", "/\\evil.example", "\\#", "/%5Cevil.example?%5C%23"),
            // nginx does not see these as a URI of another host, and neither must the client.
            ("//evil.example", "//evil.example", "", "//evil.example"),
            (".evil.example/", "/.evil.example/", "", "/.evil.example/"),
            ("@evil.example", "@evil.example", "", "/@evil.example"),
            ("", "", "", "/"),
        ] {
            let got = moved.location(b"a.wmflabs.org", path.as_bytes(), written.as_bytes(), query.as_bytes());
            let want = format!("http://a.wmcloud.org:8080{want}");
            assert_eq!(String::from_utf8(got.unwrap()).unwrap(), want, "{written}");
        }
    }

    #[test]
    fn a_moved_domain_is_a_domain_and_another_site() {
        for (old, new, want) in [
            ("*.a.org", "https://b.org", r#"domain "*.a.org" has no hosts below it, expected e.g. "wmflabs.org""#),
            ("10.0.0.1", "https://b.org", r#"domain "10.0.0.1" has no hosts below it, expected e.g. "wmflabs.org""#),
            ("[::1]", "https://b.org", r#"domain "[::1]" has no hosts below it, expected e.g. "wmflabs.org""#),
            ("a.org", "b.org", r#"site "b.org" has no scheme, expected e.g. "https://toolforge.org""#),
            ("A.org", "https://a.ORG.", r#"domain "a.org" moves to itself, expected another domain"#),
        ] {
            assert_eq!(MovedDomain::try_new(old, new).unwrap_err().to_string(), want);
        }
        assert!(matches!(MovedDomain::try_new("https://a.org", "https://b.org"), Err(MovedError::Old(_))));
        assert!(matches!(MovedDomain::try_new("a.org", "https://b.org/x"), Err(MovedError::New(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_change_the_host_or_end_the_header(
            labels in prop::collection::vec(prop::sample::select(b"aZ0-_.:@#?\\/%\r\n \xff".to_vec()), 0..12),
            path in prop::collection::vec(any::<u8>(), 0..40),
            written in prop::collection::vec(any::<u8>(), 0..40),
            query in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let host = [&labels[..], b".wmflabs.org"].concat();
            if let Some(location) = moved().location(&host, &path, &written, &query) {
                let host = [b"https://", &labels[..], b".wmcloud.org/"].concat();
                prop_assert!(location.starts_with(&host));
                prop_assert!(labels.split(|&byte| byte == b'.').all(is_label));
                prop_assert!(location.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#'));
            }
        }
    }
}
