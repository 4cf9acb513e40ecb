//! Names of keys. Unchanged from the old stack, so that old and new writers can share one Redis.

use crate::route::{KeyError, Kind, RouteKey};

/// What the key of each tool's routes begins with.
pub const ROUTES_PREFIX: &str = "prefix:";
/// What the key of each tool's canonical hosts begins with.
pub const REDIRECTS_PREFIX: &str = "redirect:";
/// What the key of each domain's backends begins with.
pub const DOMAINS_PREFIX: &str = "frontend:";
/// What the key of each tool's origins begins with.
pub const ORIGIN_PREFIX: &str = "origin:";

/// Hash: which tool is routed to an address, `host:port` as in the normal form of a URL. An index for writers: it says where to
/// look, and what it says counts only if the tool's routes say it too. Old writers leave it as it is.
pub const ADDRESSES_KEY: &str = "addresses";

/// What the keys of a kind begin with. Proxies follow all of them.
pub const fn prefix_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => ROUTES_PREFIX,
        Kind::Redirect => REDIRECTS_PREFIX,
        Kind::Domain => DOMAINS_PREFIX,
    }
}

/// A glob that all keys begin with which proxies follow, and few others: one walk over the store finds them.
pub const FOLLOWED_GLOB: &str = "[prf][re][edo]*:*";

/// The key of a tool's routes.
pub fn routes_key(tool: &[u8]) -> Vec<u8> {
    [ROUTES_PREFIX.as_bytes(), tool].concat()
}

/// The key of what is known about who registered a tool's routes.
pub fn origin_key(tool: &[u8]) -> Vec<u8> {
    [ORIGIN_PREFIX.as_bytes(), tool].concat()
}

/// The key of a tool's canonical hosts.
pub fn redirects_key(tool: &[u8]) -> Vec<u8> {
    [REDIRECTS_PREFIX.as_bytes(), tool].concat()
}

/// What a key of the store is about: a tool or a domain, by its name as the key has it; `None` for keys that are not followed.
pub fn split_key(key: &[u8]) -> Option<(Kind, &[u8])> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, key.strip_prefix(prefix_of(kind).as_bytes())?)))
}

/// The record of the table that a key of the store is for; `None` for keys that are not followed.
///
/// # Errors
/// A name that no record can have.
pub fn parse_key(key: &[u8]) -> Option<Result<RouteKey, KeyError>> {
    split_key(key).map(|(kind, name)| RouteKey::try_new(kind, name))
}

/// The key of the store that a record of the table was read from.
pub fn key_of(record: &RouteKey) -> Vec<u8> {
    [prefix_of(record.kind()).as_bytes(), record.name()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_what_it_is_about() {
        assert_eq!(split_key(&routes_key(b"hello")), Some((Kind::Tool, &b"hello"[..])));
        assert_eq!(split_key(b"prefix:"), Some((Kind::Tool, &b""[..])));
        assert_eq!(split_key(&redirects_key(b"hello")), Some((Kind::Redirect, &b"hello"[..])));
        assert_eq!(split_key(b"frontend:*.a.org"), Some((Kind::Domain, &b"*.a.org"[..])));
        assert_eq!((split_key(&origin_key(b"hello")), split_key(b"k8s_services")), (None, None));
    }

    #[test]
    fn a_record_is_read_from_the_key_that_it_was_made_of() {
        for key in [&b"prefix:hello"[..], b"redirect:hello", b"frontend:*.a.org"] {
            let (kind, name) = split_key(key).unwrap();
            assert_eq!(key_of(&RouteKey::try_new(kind, name).unwrap()), key);
        }
    }

    #[test]
    fn the_glob_takes_every_followed_key() {
        // Each class of the glob has the letter at its place.
        let classes = ["prf", "re", "edo"];
        for prefix in Kind::ALL.map(prefix_of) {
            assert!(classes.iter().zip(prefix.chars()).all(|(class, letter)| class.contains(letter)), "{prefix}");
            assert!(prefix.ends_with(':'));
        }
        assert_eq!(FOLLOWED_GLOB, format!("[{}][{}][{}]*:*", classes[0], classes[1], classes[2]));
    }
}
