//! What the table has a record for: a tool's routes, a tool's redirect, a domain's backends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::domain::{Domain, DomainError, MAX_LABEL_LEN, is_label};
use super::tool::{ToolName, ToolNameError};

/// The name of a record, of one kind and well formed: `hello`, `/rhello` or `/dwww.example.org`. At most 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey(Box<[u8]>);

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tool's routes.
    Tool,
    /// That a tool has a host of its own, where its requests are sent.
    Redirect,
    /// A domain's backends.
    Domain,
}

/// Why a text names no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No tool's name.
    #[error(transparent)]
    Tool(#[from] ToolNameError),
    /// No domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A tool that can't be redirected to `<tool>.<domain>`.
    #[error("tool {0:?} can have no host of its own, expected a name of 1 to 63 of a-z, 0-9, - and _")]
    NoHost(ToolName),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tool, Self::Redirect, Self::Domain];

    /// The kind of the record that has this name in the table.
    pub fn of(key: &[u8]) -> Self {
        let is_marked = |kind: &Self| key.starts_with(kind.mark());
        [Self::Redirect, Self::Domain].into_iter().find(is_marked).unwrap_or(Self::Tool)
    }

    /// What the names of this kind begin with in the table. No tool's name begins so, nor does a path's first segment or a
    /// host: neither can have a slash.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Tool => b"",
            Self::Redirect => b"/r",
            Self::Domain => b"/d",
        }
    }

    /// What several of them are called.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Redirect => "redirects",
            Self::Domain => "domains",
        }
    }
}

impl RouteKey {
    /// Checks a name of this kind.
    ///
    /// # Errors
    /// What is no tool, no domain, or no tool that can have a host of its own.
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

    /// A name that was read from a table.
    ///
    /// # Errors
    /// What [`RouteKey::try_new`] says of it: damaged memory.
    pub fn from_table(key: &[u8]) -> Result<Self, KeyError> {
        let kind = Kind::of(key);
        Self::try_new(kind, key.get(kind.mark().len()..).unwrap_or_default())
    }

    /// The name in the table, by which it is looked up.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it is a record of.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.0)
    }

    /// The tool or the domain.
    pub fn name(&self) -> &[u8] {
        self.0.get(self.kind().mark().len()..).unwrap_or_default()
    }
}

/// The key that a request asks for: on the stack, and of bytes that nobody has checked.
pub struct LookupKey {
    bytes: [u8; LookupKey::ROOM],
    start: usize,
    end: usize,
}

impl LookupKey {
    const ROOM: usize = 255;

    /// The tool or the domain.
    pub fn name(&self) -> &[u8] {
        let key = self.as_bytes();
        key.get(Kind::of(key).mark().len()..).unwrap_or_default()
    }

    /// The key of a tool's redirect. `None` when no redirect has a name of this length.
    pub fn redirect(tool: &[u8]) -> Option<Self> {
        if tool.len() <= MAX_LABEL_LEN { Self::marked(Kind::Redirect, tool) } else { None }
    }

    /// The key of a host as nginx leaves it: lower case, without port and trailing dot. `None` when it is longer than any
    /// domain, begins like an IPv6 address and is none, or is a wildcard, which nobody may ask for by its name.
    pub fn domain(host: &[u8]) -> Option<Self> {
        match host.first() {
            // The one host that can be written in many ways.
            Some(b'[') => {
                let literal = std::str::from_utf8(host).ok().and_then(|text| Domain::normalise(text).ok())?;
                Self::marked(Kind::Domain, literal.as_str().as_bytes())
            }
            Some(b'*') => None,
            _ => Self::marked(Kind::Domain, host),
        }
    }

    fn marked(kind: Kind, name: &[u8]) -> Option<Self> {
        let mark = kind.mark();
        let mut key = Self { bytes: [0; Self::ROOM], start: 0, end: mark.len() + name.len() };
        key.bytes.get_mut(..mark.len())?.copy_from_slice(mark);
        key.bytes.get_mut(mark.len()..key.end)?.copy_from_slice(name);
        Some(key)
    }

    /// From a domain's key to that of the wildcard that stands for it: `*.` and its parent. `None` when it has no parent.
    pub fn into_wildcard(mut self) -> Option<Self> {
        let (mark, name) = (Kind::Domain.mark(), Kind::Domain.mark().len());
        let dot = name + self.as_bytes().get(name..)?.iter().position(|&byte| byte == b'.')?;
        if dot == name {
            return None;
        }
        self.start = dot - name - 1;
        self.bytes.get_mut(self.start..dot - 1)?.copy_from_slice(mark);
        *self.bytes.get_mut(dot - 1)? = b'*';
        Some(self)
    }

    /// The key as the table has it.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
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
    fn a_key_is_what_it_was_made_of() {
        for (kind, name, shown) in [
            (Kind::Tool, "hello", "tool hello"),
            (Kind::Tool, "", "tool "),
            (Kind::Redirect, "a_b-c", "redirect of tool a_b-c"),
            (Kind::Domain, "*.example.org", "domain *.example.org"),
            (Kind::Domain, "[::1]", "domain [::1]"),
        ] {
            let key = RouteKey::try_new(kind, name.as_bytes()).unwrap();
            assert_eq!((key.kind(), key.name(), key.to_string().as_str()), (kind, name.as_bytes(), shown));
            assert_eq!(RouteKey::from_table(key.as_bytes()), Ok(key));
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        let key = RouteKey::try_new(Kind::Domain, longest.as_bytes()).unwrap();
        assert_eq!(key.as_bytes().len(), LookupKey::ROOM);
        assert_eq!(LookupKey::domain(longest.as_bytes()).unwrap().as_bytes(), key.as_bytes());
        assert!(LookupKey::domain(&[b'a'; 254]).is_none());
        assert_eq!(LookupKey::redirect(&[b'a'; 63]).unwrap().as_bytes(), [b"/r", &[b'a'; 63][..]].concat());
        assert!(LookupKey::redirect(&[b'a'; 64]).is_none());
    }

    #[test]
    fn only_a_lower_case_label_can_be_a_host() {
        for bad in ["", "Hello", "a.b", "-a", "a-", "wîki", &"a".repeat(64)] {
            assert!(RouteKey::try_new(Kind::Redirect, bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_path_and_no_tool_reaches_another_kind() {
        for path in ["//rhello", "/%2frhello", "//dexample.org", "/\0rhello"] {
            assert_eq!(Kind::of(split_path(path.as_bytes()).tool), Kind::Tool, "{path}");
        }
        assert!(RouteKey::try_new(Kind::Tool, b"/rhello").is_err());
    }

    #[test]
    fn a_host_is_looked_up_by_itself_then_by_its_wildcard() {
        for (host, wildcard) in [
            ("www.example.org", Some("/d*.example.org")),
            ("a.org", Some("/d*.org")),
            ("a.b.example.org", Some("/d*.b.example.org")),
            ("localhost", None),
            (".org", None),
            ("", None),
            ("[::1]", None),
        ] {
            let key = LookupKey::domain(host.as_bytes()).unwrap();
            assert_eq!(key.as_bytes(), format!("/d{host}").as_bytes());
            let found = key.into_wildcard();
            assert_eq!(found.as_ref().map(LookupKey::as_bytes), wildcard.map(str::as_bytes), "{host}");
        }
        assert_eq!(LookupKey::domain(b"[2001:db8:0::1]").unwrap().as_bytes(), b"/d[2001:db8::1]");
        assert!(LookupKey::domain(b"[::1").is_none() && LookupKey::domain(b"*.example.org").is_none());
    }
}
