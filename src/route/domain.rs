//! The name of a whole host, as it stands in a `Host` header and in a Redis key.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest domain, in bytes (RFC 1035, section 2.3.4, as text).
pub const MAX_DOMAIN_LEN: usize = 253;
/// Longest label, in bytes.
pub const MAX_LABEL_LEN: usize = 63;

/// A host in its normal form: a DNS name in lower case without the trailing dot, a DNS name after `*.`, an IPv4 address, or
/// an IPv6 address in brackets. Names are ASCII letters, digits, `-` and `_`; what IDNA made of others is left as it is.
///
/// The form after `*.` stands for every host with exactly one label more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

/// Why a text is no domain. Each carries the text, shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// No text.
    #[error("domain is empty, expected e.g. \"www.example.org\" or \"*.example.org\"")]
    Empty,
    /// Longer than [`MAX_DOMAIN_LEN`].
    #[error("domain has {0} bytes, expected at most {MAX_DOMAIN_LEN}")]
    TooLong(usize),
    /// A label that no host name has.
    #[error(
        "domain {0:?} is no host name, expected labels of 1 to {MAX_LABEL_LEN} letters, digits, - and _ that neither begin nor end with -"
    )]
    Label(String),
    /// Good, but not as it is compared.
    #[error("domain {0:?} is not in its normal form, expected {1:?}")]
    NotNormal(String, Domain),
}

impl Domain {
    /// Brings a domain into its normal form: lower case, without one trailing dot; IPv6 addresses as RFC 5952 writes them.
    ///
    /// # Errors
    /// Empty, too long, or a label that no host name has.
    pub fn normalise(text: &str) -> Result<Self, DomainError> {
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
        // RFC 1123, section 2.1: what ends in a number is an address, or nothing.
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        let is_address = host == name && host.parse::<Ipv4Addr>().is_ok();
        if !host.split('.').all(|l| is_label(l.as_bytes()))
            || host.rsplit('.').next().is_some_and(is_number) && !is_address
        {
            return Err(shown());
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// Takes a domain that is in its normal form already.
    ///
    /// # Errors
    /// As for [`Domain::normalise`], and [`DomainError::NotNormal`]; bytes that are not UTF-8 are no label.
    pub fn try_new(bytes: &[u8]) -> Result<Self, DomainError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| DomainError::Label(bytes.get(..120).unwrap_or(bytes).escape_ascii().to_string()))?;
        let domain = Self::normalise(text)?;
        if domain.as_str() != text {
            return Err(DomainError::NotNormal(text.chars().take(120).collect(), domain));
        }
        Ok(domain)
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for all hosts below another.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Whether it is an IPv4 or IPv6 address.
    pub fn is_address(&self) -> bool {
        self.0.starts_with('[') || self.0.parse::<Ipv4Addr>().is_ok()
    }
}

/// Whether the bytes can be one label of a host name, in any case. `_` is none of RFC 1123, but resolvers and browsers take it.
pub fn is_label(label: &[u8]) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=MAX_LABEL_LEN).contains(&label.len())
        && label.iter().all(inner)
        && label.first() != Some(&b'-')
        && label.last() != Some(&b'-')
}

/// The first label of `host` when the rest of it is `.` and `domain`.
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
    fn the_normal_form_is_lower_case_without_the_dot() {
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
            let domain = Domain::normalise(text).unwrap();
            assert_eq!(domain.as_str(), want);
            assert_eq!(Domain::try_new(want.as_bytes()), Ok(domain));
            assert_eq!(Domain::try_new(text.as_bytes()).is_ok(), text == want, "{text}");
        }
    }

    #[test]
    fn what_no_host_has_is_refused() {
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
            assert!(Domain::normalise(bad).is_err(), "{bad:?}");
        }
        assert!(Domain::try_new(b"\xff.org").is_err());
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let name = |last: usize| format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(last));
        assert!(Domain::normalise(&name(61)).is_ok_and(|d| d.as_str().len() == MAX_DOMAIN_LEN));
        assert!(Domain::normalise(&format!("{}.", name(61))).is_ok());
        assert_eq!(Domain::normalise(&name(62)), Err(DomainError::TooLong(254)));
        assert!(Domain::normalise(&"a".repeat(63)).is_ok() && Domain::normalise(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_label_below_a_domain_is_exactly_one() {
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
