//! Domains, as in a `Host` header and in a Redis key.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest domain, in bytes (RFC 1035, section 2.3.4, as text).
pub const MAX_DOMAIN_LEN: usize = 253;
/// Longest label, in bytes.
pub const MAX_LABEL_LEN: usize = 63;

/// A normalized host: a DNS name in lower case without the trailing dot, such a name after `*.`, an IPv4 address, or an IPv6
/// address in brackets. Names have ASCII letters, digits, `-` and `_`; IDNA names are used in their ASCII form.
///
/// A wildcard (`*.`) matches every host with exactly one more label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

/// Why a text is not a domain. Variants have the text, shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// No text.
    #[error("domain is empty, expected e.g. \"www.example.org\" or \"*.example.org\"")]
    Empty,
    /// Longer than [`MAX_DOMAIN_LEN`].
    #[error("domain has {0} bytes, expected at most {MAX_DOMAIN_LEN}")]
    TooLong(usize),
    /// An invalid label.
    #[error(
        "domain {0:?} is not a host name, expected labels of 1 to {MAX_LABEL_LEN} letters, digits, - and _ that neither begin nor end with -"
    )]
    Label(String),
    /// A valid domain that is not normalized.
    #[error("domain {0:?} is not normalized, expected {1:?}")]
    NotNormal(String, Domain),
}

impl Domain {
    /// Normalizes a domain: lower case, without the trailing dot; IPv6 addresses as in RFC 5952.
    ///
    /// # Errors
    /// [`DomainError::Empty`], [`DomainError::TooLong`], [`DomainError::Label`].
    pub fn normalize(text: &str) -> Result<Self, DomainError> {
        let shown = || DomainError::Label(text.chars().take(120).collect());
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if let Some(v6) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let v6: Ipv6Addr = v6.parse().map_err(|_| shown())?;
            return Ok(Self(format!("[{v6}]").into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > MAX_DOMAIN_LEN {
            return Err(DomainError::TooLong(name.len()));
        }
        let host = name.strip_prefix("*.").unwrap_or(name);
        // RFC 1123, section 2.1: a name whose last label is a number can only be an address.
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        let is_address = host == name && host.parse::<Ipv4Addr>().is_ok();
        if !host.split('.').all(|l| is_label(l.as_bytes()))
            || host.rsplit('.').next().is_some_and(is_number) && !is_address
        {
            return Err(shown());
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// Checks a domain that must be normalized already.
    ///
    /// # Errors
    /// As for [`Domain::normalize`], and [`DomainError::NotNormal`]; [`DomainError::Label`] for bytes that are not UTF-8.
    pub fn try_new(bytes: &[u8]) -> Result<Self, DomainError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| DomainError::Label(bytes.get(..120).unwrap_or(bytes).escape_ascii().to_string()))?;
        let domain = Self::normalize(text)?;
        if domain.as_str() != text {
            return Err(DomainError::NotNormal(text.chars().take(120).collect(), domain));
        }
        Ok(domain)
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a wildcard, `*.` and a name.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Whether this is an IPv4 or IPv6 address.
    pub fn is_address(&self) -> bool {
        self.0.starts_with('[') || self.0.parse::<Ipv4Addr>().is_ok()
    }
}

/// Whether the bytes are a label of a host name, in any case. RFC 1123 has no `_`, but resolvers and browsers accept it.
pub fn is_label(label: &[u8]) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=MAX_LABEL_LEN).contains(&label.len())
        && label.iter().all(inner)
        && label.first() != Some(&b'-')
        && label.last() != Some(&b'-')
}

/// The first label of `host`, if the rest is `.` and `domain`.
pub fn label_below<'h>(host: &'h [u8], domain: &[u8]) -> Option<&'h [u8]> {
    let label = host.strip_suffix(domain)?.strip_suffix(b".")?;
    is_label(label).then_some(label)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_domains_are_lower_case_without_trailing_dot() {
        for (text, want) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("*.Example.org", "*.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("a_b.example.org", "a_b.example.org"),
            ("localhost", "localhost"),
            ("10.0.0.1", "10.0.0.1"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
        ] {
            let domain = Domain::normalize(text).unwrap();
            assert_eq!(domain.as_str(), want);
            assert_eq!(Domain::try_new(want.as_bytes()), Ok(domain));
            assert_eq!(Domain::try_new(text.as_bytes()).is_ok(), text == want, "{text}");
        }
    }

    #[test]
    fn invalid_domains_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "-a.b",
            "a-.b",
            "*",
            "*.",
            "*.*.a",
            "a.*.b",
            "a*.b",
            "a b",
            "a/b",
            "a:80",
            "bücher.example",
            "[::1",
            "[::g]",
            "[10.0.0.1]",
            "1.2.3",
            "1.2.3.4.5",
            "*.10.0.0.1",
            "256.1.1.1",
            "a\0",
            "a\n",
        ] {
            assert!(Domain::normalize(bad).is_err(), "{bad:?}");
        }
        assert!(Domain::try_new(b"\xff.org").is_err());
    }

    #[test]
    fn length_limits_are_exact() {
        let name = |last: usize| format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(last));
        assert!(Domain::normalize(&name(61)).is_ok_and(|d| d.as_str().len() == MAX_DOMAIN_LEN));
        assert!(Domain::normalize(&format!("{}.", name(61))).is_ok());
        assert_eq!(Domain::normalize(&name(62)), Err(DomainError::TooLong(254)));
        assert!(Domain::normalize(&"a".repeat(63)).is_ok() && Domain::normalize(&"a".repeat(64)).is_err());
    }

    #[test]
    fn exactly_one_label_is_below_a_domain() {
        for (host, want) in [
            ("hello.toolforge.org", Some("hello")),
            ("a.b.toolforge.org", None),
            ("toolforge.org", None),
            (".toolforge.org", None),
            ("evil-toolforge.org", None),
            ("xtoolforge.org", None),
            ("hello.toolforge.org.evil", None),
            ("a/b.toolforge.org", None),
        ] {
            assert_eq!(label_below(host.as_bytes(), b"toolforge.org"), want.map(str::as_bytes), "{host}");
        }
    }
}
