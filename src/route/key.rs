//! Keys of the table's records: a tool's routes, a tool's redirect, a domain's backends.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::domain::{Domain, DomainError, MAX_DOMAIN_LEN, MAX_LABEL_LEN, is_label};
use super::tool::{ToolName, ToolNameError};

/// The valid key of a record: `hello`, `/rhello` or `/dwww.example.org`. At most 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey(Box<[u8]>);

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tool's routes.
    Tool,
    /// A tool has its own host, to which its requests are redirected.
    Redirect,
    /// A domain's backends.
    Domain,
}

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Invalid tool name.
    #[error(transparent)]
    Tool(#[from] ToolNameError),
    /// Invalid domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The tool's name is not a host label, so there is no host `<tool>.<domain>`.
    #[error("tool {0:?} cannot have its own host, expected a name of 1 to 63 of a-z, 0-9, - and _")]
    NoHost(ToolName),
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Tool, Self::Redirect, Self::Domain];

    /// The kind of an encoded key.
    pub fn of(key: &[u8]) -> Self {
        let is_marked = |kind: &Self| key.starts_with(kind.mark());
        [Self::Redirect, Self::Domain].into_iter().find(is_marked).unwrap_or(Self::Tool)
    }

    /// Splits an encoded key into its kind and the tool's name or the domain.
    pub fn split(key: &[u8]) -> (Self, &[u8]) {
        let kind = Self::of(key);
        (kind, key.get(kind.mark().len()..).unwrap_or_default())
    }

    /// As in the JSON of the admin API: `tool`, `redirect` or `domain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Redirect => "redirect",
            Self::Domain => "domain",
        }
    }

    /// The prefix of this kind's keys. Tool names, path segments and hosts have no slash, so none of them begins like another
    /// kind's key.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Tool => b"",
            Self::Redirect => b"/r",
            Self::Domain => b"/d",
        }
    }

    /// The plural, for log lines.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Redirect => "redirects",
            Self::Domain => "domains",
        }
    }
}

impl RouteKey {
    /// Checks and encodes a name.
    ///
    /// # Errors
    /// Every [`KeyError`].
    pub fn try_new(kind: Kind, name: &[u8]) -> Result<Self, KeyError> {
        match kind {
            Kind::Tool => Ok(ToolName::try_new(name)?.into()),
            Kind::Redirect => {
                let tool = ToolName::try_new(name)?;
                let is_host = is_label(name) && !name.iter().any(u8::is_ascii_uppercase);
                if is_host { Ok(Self([kind.mark(), name].concat().into())) } else { Err(KeyError::NoHost(tool)) }
            }
            Kind::Domain => Ok(Self([kind.mark(), Domain::try_new(name)?.as_str().as_bytes()].concat().into())),
        }
    }

    /// Checks an encoded key that was read from a table.
    ///
    /// # Errors
    /// Those of [`RouteKey::try_new`]; they mean damaged memory.
    pub fn from_table(key: &[u8]) -> Result<Self, KeyError> {
        let (kind, name) = Kind::split(key);
        Self::try_new(kind, name)
    }

    /// The encoded key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The kind of the record.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.0)
    }

    /// The tool's name or the domain.
    pub fn name(&self) -> &[u8] {
        Kind::split(&self.0).1
    }
}

/// The prefix of wildcard domains' keys.
const WILDCARD: &[u8] = b"/d*";

/// The unchecked key of a lookup, as separate mark and name, so that lookups need not concatenate them.
#[derive(Clone, Copy, Debug)]
pub struct LookupKey<'n> {
    /// [`Kind::mark`], or [`WILDCARD`].
    mark: &'static [u8],
    name: &'n [u8],
}

impl<'n> LookupKey<'n> {
    /// The key of a tool's routes.
    #[inline(always)]
    pub fn tool(name: &'n [u8]) -> Self {
        Self { mark: Kind::Tool.mark(), name }
    }

    /// The key of a tool's redirect. `None` if the name is too long for one.
    #[inline(always)]
    pub fn redirect(tool: &'n [u8]) -> Option<Self> {
        (tool.len() <= MAX_LABEL_LEN).then_some(Self { mark: Kind::Redirect.mark(), name: tool })
    }

    /// The key of a [normalized host](normal_host).
    #[inline(always)]
    pub fn domain(host: &'n [u8]) -> Self {
        Self { mark: Kind::Domain.mark(), name: host }
    }

    /// The key of the wildcard that matches a host: `*.` and its parent. `None` if the host has no parent.
    pub fn wildcard(host: &'n [u8]) -> Option<Self> {
        let dot = host.iter().position(|&byte| byte == b'.').filter(|&dot| dot > 0)?;
        Some(Self { mark: WILDCARD, name: host.get(dot..)? })
    }

    /// The tool, the domain, or a wildcard's text after its `*`.
    #[inline(always)]
    pub fn name(&self) -> &'n [u8] {
        self.name
    }

    /// The encoded key, see [`RouteKey::as_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.mark, self.name].concat()
    }

    /// Whether this equals an encoded key.
    #[inline(always)]
    pub fn is(&self, key: &[u8]) -> bool {
        let parts = key.split_at_checked(self.mark.len());
        // Byte by byte: marks are too short to justify a call of memcmp.
        parts.is_some_and(|(mark, name)| name == self.name && mark.iter().eq(self.mark))
    }

    /// The kind's part of the key's hash. It is in the low bits, so that a tool and its redirect share a home bucket: after
    /// looking up one, a reader has the other's hash and cache line.
    #[inline(always)]
    pub const fn mark(&self) -> u64 {
        match self.mark {
            [] => 0,
            [_, b'r'] => 1,
            [_, _] => 2,
            _ => 3,
        }
    }
}

/// From an encoded key.
impl<'k> From<&'k [u8]> for LookupKey<'k> {
    fn from(key: &'k [u8]) -> Self {
        // Longer marks before their own prefixes.
        let marks = [WILDCARD, Kind::Domain.mark(), Kind::Redirect.mark(), Kind::Tool.mark()];
        let marked = |mark| Some(Self { mark, name: key.strip_prefix(mark)? });
        marks.into_iter().find_map(marked).unwrap_or(Self::tool(key))
    }
}

/// Normalizes a host from nginx (lower case, without port and trailing dot) for a lookup. `None` if it is too long, an invalid
/// IPv6 address, or a wildcard, which requests must not look up directly.
#[inline(always)]
pub fn normal_host(host: &[u8]) -> Option<Cow<'_, [u8]>> {
    match host.first() {
        // Only IPv6 addresses can be written in several ways.
        Some(b'[') => {
            let literal = std::str::from_utf8(host).ok().and_then(|text| Domain::normalize(text).ok())?;
            Some(Cow::Owned(literal.as_str().into()))
        }
        Some(b'*') => None,
        _ => (host.len() <= MAX_DOMAIN_LEN).then_some(Cow::Borrowed(host)),
    }
}

impl From<ToolName> for RouteKey {
    fn from(tool: ToolName) -> Self {
        Self(tool.as_bytes().into())
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind() {
            Kind::Tool => "tool",
            Kind::Redirect => "redirect of tool",
            Kind::Domain => "domain",
        };
        write!(f, "{what} {}", String::from_utf8_lossy(self.name()))
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::split_path;

    #[test]
    fn keys_round_trip() {
        for (kind, name, shown) in [
            (Kind::Tool, "hello", "tool hello"),
            (Kind::Tool, "", "tool "),
            (Kind::Redirect, "a_b-c", "redirect of tool a_b-c"),
            (Kind::Domain, "*.example.org", "domain *.example.org"),
            (Kind::Domain, "[::1]", "domain [::1]"),
        ] {
            let key = RouteKey::try_new(kind, name.as_bytes()).unwrap();
            assert_eq!((key.kind(), key.name()), (kind, name.as_bytes()));
            assert_eq!((key.to_string(), format!("{key:?}")), (shown.into(), shown.into()));
            assert_eq!(RouteKey::from_table(key.as_bytes()), Ok(key));
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        let key = RouteKey::try_new(Kind::Domain, longest.as_bytes()).unwrap();
        assert_eq!(key.as_bytes().len(), 255);
        assert_eq!(normal_host(longest.as_bytes()).as_deref(), Some(longest.as_bytes()));
        assert!(LookupKey::domain(longest.as_bytes()).is(key.as_bytes()));
        assert!(normal_host(&[b'a'; 254]).is_none());
        assert!(LookupKey::redirect(&[b'a'; 63]).unwrap().is(&[b"/r", &[b'a'; 63][..]].concat()));
        assert!(LookupKey::redirect(&[b'a'; 64]).is_none());
    }

    #[test]
    fn lookup_keys_equal_encoded_keys() {
        let asked = [
            LookupKey::tool(b"hello"),
            LookupKey::redirect(b"hello").unwrap(),
            LookupKey::domain(b"hello"),
            LookupKey::wildcard(b"www.example.org").unwrap(),
        ];
        for (number, key) in asked.iter().enumerate() {
            let written = key.to_bytes();
            let read = LookupKey::from(&written[..]);
            assert_eq!((read.mark, read.name, read.mark()), (key.mark, key.name, number as u64));
            assert_eq!(asked.iter().position(|other| other.is(&written)), Some(number));
        }
    }

    #[test]
    fn redirects_need_a_lower_case_label() {
        for bad in ["", "Hello", "a.b", "-a", "a-", "wîki", &"a".repeat(64)] {
            assert!(RouteKey::try_new(Kind::Redirect, bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_and_tool_names_never_reach_another_kind() {
        for path in ["//rhello", "/%2frhello", "//dexample.org", "/\0rhello"] {
            assert_eq!(Kind::of(split_path(path.as_bytes()).tool), Kind::Tool, "{path}");
        }
        assert!(RouteKey::try_new(Kind::Tool, b"/rhello").is_err());
    }

    #[test]
    fn hosts_have_a_domain_key_and_a_wildcard_key() {
        for (host, wildcard) in [
            ("www.example.org", Some("/d*.example.org")),
            ("a.org", Some("/d*.org")),
            ("a.b.example.org", Some("/d*.b.example.org")),
            ("localhost", None),
            (".org", None),
            ("", None),
            ("[::1]", None),
        ] {
            assert_eq!(
                LookupKey::domain(&normal_host(host.as_bytes()).unwrap()).to_bytes(),
                format!("/d{host}").as_bytes()
            );
            let found = LookupKey::wildcard(host.as_bytes()).map(|key| key.to_bytes());
            assert_eq!(found.as_deref(), wildcard.map(str::as_bytes), "{host}");
        }
        assert_eq!(normal_host(b"[2001:db8:0::1]").as_deref(), Some(&b"[2001:db8::1]"[..]));
        assert!(normal_host(b"[::1").is_none() && normal_host(b"*.example.org").is_none());
    }
}
