//! Where the Lease is.

use std::fmt;
use std::str::FromStr;

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace, a label as in DNS (RFC 1123).
    pub namespace: String,
    /// Its name, such labels with dots between them.
    pub name: String,
}

/// What is no name of a Lease.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid lease {0:?}, expected NAMESPACE/NAME, e.g. \"urlproxy/kube2proxy\"")]
pub struct InvalidLeaseName(String);

impl FromStr for LeaseName {
    type Err = InvalidLeaseName;

    fn from_str(text: &str) -> Result<Self, InvalidLeaseName> {
        let right = |(namespace, name): &(&str, &str)| {
            is_label(namespace) && name.len() <= 253 && name.split('.').all(is_label)
        };
        let (namespace, name) = text.split_once('/').filter(right).ok_or_else(|| InvalidLeaseName(text.to_owned()))?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where() {
        let name: LeaseName = "urlproxy/kube2proxy.main".parse().unwrap();
        assert_eq!((&*name.namespace, &*name.name), ("urlproxy", "kube2proxy.main"));
        assert_eq!(name.to_string(), "urlproxy/kube2proxy.main");
        for text in
            ["", "kube2proxy", "/kube2proxy", "urlproxy/", "a/b/c", "A/b", "a.b/c", "-a/b", "a/b_c", "a/b..c", "a/ b"]
        {
            let error = text.parse::<LeaseName>().unwrap_err().to_string();
            assert!(error.contains("expected NAMESPACE/NAME, e.g. \"urlproxy/kube2proxy\""), "{text}");
        }
    }
}
