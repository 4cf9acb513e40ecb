//! The mapping policy: rules for domains and backends, for API requests and for imports.

use std::collections::BTreeSet;

use super::backend_policy::{BackendPolicy, BackendPolicyError};
use super::reserved::Reserved;
use super::resolver::Resolved;
use super::suffixes::Suffixes;
use crate::route::{Backend, Domain, DomainError, MAX_BACKENDS};

/// Longest name of a project, in bytes, as in the old database.
pub const MAX_PROJECT_LEN: usize = 256;

/// The operator's rules.
#[derive(Clone, Debug)]
pub struct MappingPolicy {
    pub suffixes: Suffixes,
    pub reserved: Reserved,
    pub backends: BackendPolicy,
    /// Domains per project.
    pub max_domains: usize,
    /// Domains of all projects together.
    pub max_total_domains: usize,
    /// Backends per domain.
    pub max_backends: usize,
}

/// Why a domain may not be mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainPolicyError {
    #[error(transparent)]
    Syntax(#[from] DomainError),
    /// An address, or a name with `_`, which certificates cannot have.
    #[error(
        "domain {0:?} is not a host name (RFC 1123), expected labels of letters, digits and -, e.g. \"www.example.org\""
    )]
    Strict(Domain),
    /// A public suffix, or a wildcard directly below one.
    #[error(
        "domain {0:?} is a public suffix or a wildcard below one, expected a domain below it, e.g. \"www.example.org\""
    )]
    Suffix(Domain),
}

impl MappingPolicy {
    /// The canonical form of a domain that may be mapped.
    ///
    /// # Errors
    /// Not a host name or wildcard, an address, or a public suffix.
    pub fn domain(&self, text: &str) -> Result<Domain, DomainPolicyError> {
        let domain = Domain::normalize(text)?;
        if domain.is_address() || domain.as_str().contains('_') {
            return Err(DomainPolicyError::Strict(domain));
        }
        if self.suffixes.protect(&domain) {
            return Err(DomainPolicyError::Suffix(domain));
        }
        Ok(domain)
    }

    /// The canonical forms of backends, without duplicates, in the given order. Does not check their number, but ignores all after
    /// one more than a domain can have.
    ///
    /// # Errors
    /// The list is empty, or a backend is invalid or not allowed.
    pub fn backends(&self, texts: &[String]) -> Result<Vec<String>, BackendPolicyError> {
        let mut backends: Vec<String> = Vec::new();
        for text in texts {
            let backend: Backend = text.parse()?;
            let canonical = backend.to_string();
            if backends.contains(&canonical) {
                continue;
            }
            self.backends.check(&backend)?;
            backends.push(canonical);
            if backends.len() > MAX_BACKENDS {
                break;
            }
        }
        if backends.is_empty() { Err(BackendPolicyError::None) } else { Ok(backends) }
    }

    /// The host names to resolve for [`MappingPolicy::check_resolved`]; ignores invalid backends.
    pub fn names_of(&self, texts: &[String]) -> BTreeSet<Box<str>> {
        let backends = texts.iter().filter_map(|text| text.parse::<Backend>().ok());
        backends.flat_map(|backend| self.backends.names_of(&backend)).collect()
    }

    /// Checks the resolved addresses of backends; ignores invalid backends, which [`MappingPolicy::backends`] refuses.
    ///
    /// # Errors
    /// The first backend that is not allowed.
    pub fn check_resolved(&self, texts: &[String], resolved: &Resolved) -> Result<(), BackendPolicyError> {
        let mut backends = texts.iter().filter_map(|text| text.parse::<Backend>().ok());
        backends.try_for_each(|backend| self.backends.check_resolved(&backend, resolved))
    }
}

/// Whether a project's name is valid: ASCII letters, digits, `_`, `.` and `-`, beginning with a letter or digit.
pub fn is_project(name: &str) -> bool {
    name.len() <= MAX_PROJECT_LEN
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::NotAllowed;

    fn policy(networks: &[&str]) -> MappingPolicy {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        MappingPolicy {
            suffixes: Suffixes::default(),
            reserved: Reserved::default(),
            backends: BackendPolicy::restricted_to(networks),
            max_domains: 1,
            max_total_domains: 1,
            max_backends: 1,
        }
    }

    #[test]
    fn domains_have_two_labels_or_more() {
        for (text, want) in [
            ("www.Example.ORG.", "www.example.org"),
            ("*.example.org", "*.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
        ] {
            assert_eq!(policy(&[]).domain(text).unwrap().as_str(), want);
        }
        for text in [
            "",
            ".",
            "org",
            "*.org",
            "*",
            "*.*.a.org",
            "a.*.org",
            "10.0.0.1",
            "[::1]",
            "::1",
            "a_b.org",
            "_dmarc.a.org",
            "a..org",
            "-a.org",
            "a-.org",
            "a.org:80",
            "a.org/",
            "a b.org",
            "bücher.example",
            "a.1",
            "a\0.org",
            &format!("{}.org", "a".repeat(64)),
            &"a.".repeat(128),
        ] {
            assert!(policy(&[]).domain(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn without_networks_all_but_special_addresses_are_allowed() {
        for url in [
            "http://10.0.0.1:80",
            "https://[2001:db8::1]:443",
            "http://web-1.example:8080",
            "https://[64:ff9b::10.0.0.1]:443",
            "https://[2002:a00:1::1]:443",
        ] {
            assert!(policy(&[]).backends(&[url.into()]).is_ok(), "{url}");
        }
        for host in [
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "[::]",
            "[fe80::1]",
            "[ff02::1]",
            "[::ffff:169.254.169.254]",
            "[::127.0.0.1]",
            "[fd00:ec2::254]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b:1::127.0.0.1]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[2002:7f00:1::1]",
            "[2002:a9fe:a9fe::1]",
            "[2001:db8::5efe:127.0.0.1]",
        ] {
            let error = policy(&[]).backends(&[format!("http://{host}:80")]).unwrap_err();
            assert!(matches!(error, BackendPolicyError::NotAllowed(NotAllowed::Special(_))), "{host}: {error}");
        }
    }

    #[test]
    fn with_networks_only_their_addresses_are_allowed() {
        let policy = policy(&["10.0.0.0/8", "127.0.0.1/32"]);
        for url in ["http://10.9.9.9:80", "http://127.0.0.1:80", "http://[::ffff:10.0.0.1]:80"] {
            assert!(policy.backends(&[url.into()]).is_ok(), "{url}");
        }
        for url in ["http://127.0.0.2:80", "http://192.0.2.1:80", "http://web-1.example:80", "http://[::1]:80"] {
            assert!(matches!(policy.backends(&[url.into()]), Err(BackendPolicyError::NotAllowed(_))), "{url}");
        }
    }

    #[test]
    fn backends_are_canonical_and_unique() {
        let texts = ["http://B.example:80", "http://10.0.0.1:80", "http://b.example.:80", "HTTP://b.example/"];
        let texts = texts.map(String::from);
        assert_eq!(policy(&[]).backends(&texts).unwrap(), ["http://b.example:80", "http://10.0.0.1:80"]);
        assert_eq!(policy(&[]).backends(&[]), Err(BackendPolicyError::None));
        for url in ["", "10.0.0.1:80", "http://10.0.0.1:", "http://10.0.0.1:80/x", "ftp://a.b:1", "http://a:0"] {
            assert!(matches!(policy(&[]).backends(&[url.into()]), Err(BackendPolicyError::Syntax(_))), "{url}");
        }
    }

    #[test]
    fn project_names_are_checked() {
        for name in ["a", "tools", "Tools-2", "a.b_c-d", "0", &"a".repeat(256)] {
            assert!(is_project(name), "{name}");
        }
        for name in ["", "-a", ".", "..", "_a", "a/b", "a b", "é", "a\0", "a\n", &"a".repeat(257)] {
            assert!(!is_project(name), "{name:?}");
        }
    }

    #[test]
    fn excess_backends_are_ignored() {
        let urls = |count: usize| (1..=count).map(|port| format!("http://10.0.0.1:{port}"));
        let all = |count| policy(&[]).backends(&urls(count).chain(["no backend".into()]).collect::<Vec<_>>());
        assert!(all(MAX_BACKENDS).is_err());
        assert_eq!(all(MAX_BACKENDS + 1).unwrap().len(), MAX_BACKENDS + 1);
    }
}
