//! Routes: names, patterns, backends, and the choice among them. Safe code, no I/O.
#![warn(missing_docs)]

mod automaton;
mod backend;
mod choice;
mod domain;
mod key;
mod loop_mark;
mod moved;
mod network;
mod pattern;
mod request;
mod site;
mod tool;

pub use automaton::{Automata, AutomataLimits, MAX_AUTOMATA_BYTES, TooCostly, find_first};
pub use backend::{Backend, BackendError, Host, Scheme};
pub use choice::{Order, choose, draw_for_addr, draw_for_name, key_hash};
pub use domain::{Domain, DomainError, MAX_DOMAIN_LEN, MAX_LABEL_LEN, is_label, label_below};
pub use key::{KeyError, Kind, LookupKey, RouteKey, normal_host};
pub use loop_mark::has_loop_mark;
pub use moved::{MovedDomain, MovedError};
pub use network::{NetworkError, parse_network, parse_networks};
pub use pattern::{MAX_PATTERN_LEN, Matcher, Pattern, PatternError, contains};
pub use request::{PathRequest, split_path};
pub use site::{RedirectRequest, Site, SiteError, decode_one};
pub use tool::{MAX_TOOL_NAME_LEN, ToolName, ToolNameError};

/// Most patterns one tool may have.
pub const MAX_ROUTES: usize = 32;
/// Most backends one route may have: the set of tried backends fits a machine word.
pub const MAX_BACKENDS: usize = 64;

/// A pattern of a tool and its backends: at least one, at most [`MAX_BACKENDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Searched in the path after the tool's name.
    pub pattern: Pattern,
    /// Sorted by text, so that equal sets make equal routes.
    pub backends: Vec<Backend>,
}

/// Sorts a tool's routes into matching order: patterns with more literal text first, then byte order; catch-all patterns
/// last. (The old `urlproxy.lua` used the undefined order of `pairs`.)
pub fn sort_routes(routes: &mut [Route]) {
    routes.sort_by(|a, b| a.pattern.cmp_precedence(&b.pattern));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(patterns: &[&str]) -> Vec<String> {
        let backends = vec!["http://127.0.0.1:80".parse().unwrap()];
        let mut routes: Vec<_> = patterns
            .iter()
            .map(|p| Route { pattern: Pattern::try_new(p).unwrap(), backends: backends.clone() })
            .collect();
        sort_routes(&mut routes);
        routes.iter().map(|r| r.pattern.as_str().to_owned()).collect()
    }

    #[test]
    fn catch_all_comes_last_and_longest_literal_first() {
        assert_eq!(
            sorted(&[".*", "/api", "/api/v2.*", "^/x[0-9]+", "[a-z]"]),
            ["/api/v2.*", "/api", "^/x[0-9]+", "[a-z]", ".*"]
        );
    }

    #[test]
    fn equal_lengths_sort_by_bytes() {
        assert_eq!(sorted(&["/b", "/a", "/B"]), ["/B", "/a", "/b"]);
    }

    #[test]
    fn patterns_that_always_match_are_catch_alls() {
        assert_eq!(sorted(&["/.*", "", "/", "^/", "[a-z]", "^.*", ".*"]), ["[a-z]", "", ".*", "/", "/.*", "^.*", "^/"]);
    }
}
