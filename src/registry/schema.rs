//! Key names. Unchanged from the old stack, so that old and new writers can share one Redis.

use crate::route::{KeyError, Kind, RouteKey};

/// Prefix of the keys of tools' routes.
pub const ROUTES_PREFIX: &str = "prefix:";
/// Prefix of the keys of tools' canonical hosts.
pub const REDIRECTS_PREFIX: &str = "redirect:";
/// Prefix of the keys of domains' backends.
pub const DOMAINS_PREFIX: &str = "frontend:";
/// Prefix of the keys of tools' origins.
pub const ORIGIN_PREFIX: &str = "origin:";

/// The address index, a hash: the tool that is routed to an address, `host:port` as in a normalized URL. Only a hint for writers:
/// an entry counts only if the tool's routes agree. Old writers do not update it.
pub const ADDRESSES_KEY: &str = "addresses";

/// The prefix of a kind of keys that proxies follow.
pub const fn prefix_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => ROUTES_PREFIX,
        Kind::Redirect => REDIRECTS_PREFIX,
        Kind::Domain => DOMAINS_PREFIX,
    }
}

/// A glob that matches all keys that proxies follow, and few others, so that one scan finds them.
pub const FOLLOWED_GLOB: &str = "[prf][re][edo]*:*";

/// The key of a tool's routes.
pub fn routes_key(tool: &[u8]) -> Vec<u8> {
    [ROUTES_PREFIX.as_bytes(), tool].concat()
}

/// The key of a tool's origins.
pub fn origin_key(tool: &[u8]) -> Vec<u8> {
    [ORIGIN_PREFIX.as_bytes(), tool].concat()
}

/// The key of a tool's canonical hosts.
pub fn redirects_key(tool: &[u8]) -> Vec<u8> {
    [REDIRECTS_PREFIX.as_bytes(), tool].concat()
}

/// Splits a key into its kind and the unvalidated name of the tool or domain; `None` for keys that proxies do not follow.
pub fn split_key(key: &[u8]) -> Option<(Kind, &[u8])> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, key.strip_prefix(prefix_of(kind).as_bytes())?)))
}

/// The table's key for a key in Redis; `None` for keys that proxies do not follow.
///
/// # Errors
/// An invalid name.
pub fn parse_key(key: &[u8]) -> Option<Result<RouteKey, KeyError>> {
    split_key(key).map(|(kind, name)| RouteKey::try_new(kind, name))
}

/// The key in Redis of a record in the table.
pub fn key_of(record: &RouteKey) -> Vec<u8> {
    [prefix_of(record.kind()).as_bytes(), record.name()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_into_kind_and_name() {
        assert_eq!(split_key(&routes_key(b"hello")), Some((Kind::Tool, &b"hello"[..])));
        assert_eq!(split_key(b"prefix:"), Some((Kind::Tool, &b""[..])));
        assert_eq!(split_key(&redirects_key(b"hello")), Some((Kind::Redirect, &b"hello"[..])));
        assert_eq!(split_key(b"frontend:*.a.org"), Some((Kind::Domain, &b"*.a.org"[..])));
        assert_eq!(origin_key(b"hello"), b"origin:hello");
        assert_eq!((split_key(&origin_key(b"hello")), split_key(b"k8s_services")), (None, None));
    }

    #[test]
    fn keys_survive_a_round_trip() {
        for key in [&b"prefix:hello"[..], b"redirect:hello", b"frontend:*.a.org"] {
            let (kind, name) = split_key(key).unwrap();
            assert_eq!(key_of(&RouteKey::try_new(kind, name).unwrap()), key);
        }
    }

    #[test]
    fn glob_matches_all_followed_keys() {
        // Each class of the glob contains the letter at its position.
        let classes = ["prf", "re", "edo"];
        for prefix in Kind::ALL.map(prefix_of) {
            assert!(classes.iter().zip(prefix.chars()).all(|(class, letter)| class.contains(letter)), "{prefix}");
            assert!(prefix.ends_with(':'));
        }
        assert_eq!(FOLLOWED_GLOB, format!("[{}][{}][{}]*:*", classes[0], classes[1], classes[2]));
    }
}
