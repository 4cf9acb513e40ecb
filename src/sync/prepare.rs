//! Selects the routes of a key that the table takes: the first 32 that fit the key's share, with their patterns' automata.

use std::collections::VecDeque;

use crate::registry::{self, Admission, Admitted, RawRoutes, Rejection, RejectionReason};
use crate::route::{
    Automata, AutomataLimits, MAX_AUTOMATA_BYTES, MAX_ROUTES, Matcher, Pattern, Route, RouteKey, TooCostly,
};
use crate::table::{Capacity, backend_bytes, record_bytes, route_bytes};

/// How often later routes may take the space of patterns that turned out too large.
const MAX_REFILLS: usize = 2;

/// A key's value, ready to publish.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// In matching order.
    pub routes: Vec<Route>,
    /// The automata of the routes' regular expressions.
    pub automata: Vec<u8>,
    /// All other routes, with reasons.
    pub rejected: Vec<Rejection>,
}

/// Builds the automata of patterns within a number of bytes; `None` to postpone the whole key.
pub(super) type Build<'b> = &'b mut dyn FnMut(&[&str], usize) -> Option<Automata>;

/// Parses a key's value and fits it into the `share` bytes that its record may take. `None` if `build` postpones it.
pub(super) fn prepare(
    (key, record): (&[u8], &RouteKey),
    raw: &RawRoutes<'_>,
    admission: &Admission,
    share: usize,
    build: Build<'_>,
) -> Option<Prepared> {
    let Admitted { routes, rejected } = registry::admit(key, raw, admission);
    let mut selection = Selection { key, share, left: share.saturating_sub(record_bytes(record, &[])), rejected };
    let (routes, automata) = selection.fit(routes, build)?;
    let mut admitted = Admitted { routes, rejected: selection.rejected };
    admitted.summarize(key);
    Some(Prepared { routes: admitted.routes, automata, rejected: admitted.rejected })
}

/// The routes of a key that a zone of this size takes, in matching order, and the rejected ones; for programs that check what
/// the companion will do.
pub fn admit_into_zone(
    key: &[u8],
    record: &RouteKey,
    raw: &RawRoutes<'_>,
    admission: &Admission,
    zone: Capacity,
) -> Admitted {
    let mut build = |texts: &[&str], bytes| Some(build_fully(texts, bytes, &|| false));
    let prepared = prepare((key, record), raw, admission, zone.record_limit(), &mut build).unwrap_or_default();
    Admitted { routes: prepared.routes, rejected: prepared.rejected }
}

/// Builds automata with the full limits of a tool: for the builder thread, where time does not matter.
pub(super) fn build_fully(patterns: &[&str], bytes: usize, is_stopped: &dyn Fn() -> bool) -> Automata {
    Automata::build(patterns, AutomataLimits::of_bytes(bytes), is_stopped)
}

struct Selection<'k> {
    key: &'k [u8],
    share: usize,
    /// Unused bytes of the share.
    left: usize,
    rejected: Vec<Rejection>,
}

impl Selection<'_> {
    /// Returns the kept routes, in order, and their automata.
    fn fit(&mut self, routes: Vec<Route>, build: Build<'_>) -> Option<(Vec<Route>, Vec<u8>)> {
        let mut candidates = VecDeque::from(routes);
        let mut kept = Vec::new();
        let mut automata = Vec::new();
        for _ in 0..=MAX_REFILLS {
            self.take(&mut candidates, &mut kept);
            let texts: Vec<_> =
                kept.iter().map(|route| &route.pattern).filter(|p| is_regex(p)).map(Pattern::as_str).collect();
            if texts.is_empty() {
                return Some((kept, Vec::new()));
            }
            let built = build(&texts, self.left)?;
            self.reject_costly(&mut kept, built.refused());
            automata = built.as_bytes().to_vec();
            let makes_room = built.refused().iter().any(|(_, why)| *why == TooCostly::Alone);
            if !makes_room || candidates.is_empty() {
                break;
            }
        }
        Some((kept, automata))
    }

    /// Adds candidates that fit. Space for the catch-all route is reserved first: it is matched last but answers most
    /// requests.
    fn take(&mut self, candidates: &mut VecDeque<Route>, kept: &mut Vec<Route>) {
        while kept.len() < MAX_ROUTES
            && let Some(mut route) = candidates.pop_front()
        {
            let is_any = |route: &&Route| route.pattern.matcher() == Matcher::Any;
            let catch_all = if is_any(&&route) { None } else { candidates.iter().find(is_any) };
            let room = self.left.saturating_sub(catch_all.map_or(0, route_bytes));
            let mut bytes = route_bytes(&route);
            let mut is_short = false;
            while bytes > room
                && route.backends.len() > 1
                && let Some(backend) = route.backends.pop()
            {
                bytes -= backend_bytes(&backend);
                is_short = true;
            }
            if bytes > room || is_short {
                let pattern = (!is_short).then(|| route.pattern.as_str().as_bytes());
                self.rejected.push(Rejection::of(self.key, pattern, RejectionReason::NoShare(self.share)));
            }
            if bytes <= room {
                self.left -= bytes;
                kept.push(route);
            }
        }
    }

    /// Rejects the regular expressions for which no automaton was built.
    fn reject_costly(&mut self, kept: &mut Vec<Route>, refused: &[(usize, TooCostly)]) {
        let mut refused = refused.iter().copied().peekable();
        let mut number = 0;
        kept.retain(|route| {
            if !is_regex(&route.pattern) {
                return true;
            }
            let this = number;
            number += 1;
            let Some((_, why)) = refused.next_if(|&(refused, _)| refused == this) else { return true };
            let reason = match why {
                TooCostly::Alone => route.pattern.too_large(self.left.min(MAX_AUTOMATA_BYTES)).into(),
                TooCostly::AfterOthers => RejectionReason::NoShare(self.share),
                TooCostly::Effort => RejectionReason::TooCostly,
            };
            self.rejected.push(Rejection::of(self.key, Some(route.pattern.as_str().as_bytes()), reason));
            false
        });
    }
}

fn is_regex(pattern: &Pattern) -> bool {
    pattern.matcher() == Matcher::Regex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Kind, MAX_BACKENDS};

    const SHARE: usize = 9558;

    fn fitted(fields: &[(&str, &str)]) -> Prepared {
        let raw = RawRoutes::Hash(fields.iter().map(|(f, v)| (f.as_bytes(), v.as_bytes())).collect());
        fitted_raw(Kind::Tool, &raw)
    }

    fn fitted_raw(kind: Kind, raw: &RawRoutes<'_>) -> Prepared {
        let record = RouteKey::try_new(kind, b"hello").unwrap();
        let mut build = |texts: &[&str], bytes| Some(build_fully(texts, bytes, &|| false));
        let prepared =
            prepare((&registry::key_of(&record), &record), raw, &Admission::default(), SHARE, &mut build).unwrap();
        assert!(record_bytes(&record, &prepared.routes) + prepared.automata.len() <= SHARE);
        prepared
    }

    fn texts(prepared: &Prepared) -> Vec<&str> {
        prepared.routes.iter().map(|route| route.pattern.as_str()).collect()
    }

    const URL: &str = "http://10.0.0.1:1";

    #[test]
    fn the_limit_of_routes_keeps_those_tried_first() {
        let patterns: Vec<_> = (0..=MAX_ROUTES).map(|i| format!("/{}", "x".repeat(i + 1))).collect();
        let fields: Vec<_> = patterns.iter().map(|p| (p.as_str(), URL)).collect();
        assert!(fitted(&fields[..MAX_ROUTES]).rejected.is_empty());
        let prepared = fitted(&fields);
        assert_eq!(prepared.routes.len(), MAX_ROUTES);
        assert!(!texts(&prepared).contains(&"/x"));
        assert_eq!(prepared.rejected.len(), 1);
        assert_eq!(prepared.rejected[0].reason, RejectionReason::TooManyRoutes(MAX_ROUTES + 1));
    }

    #[test]
    fn a_pattern_that_is_too_large_makes_room_for_the_next() {
        let patterns: Vec<_> = (0..MAX_ROUTES).map(|i| format!("/{}", "x".repeat(i + 1))).collect();
        let large = format!("a.{{300}}b{}", "x".repeat(100));
        let mut fields: Vec<_> = patterns.iter().map(|p| (p.as_str(), URL)).collect();
        fields.push((&large, URL));
        let prepared = fitted(&fields);
        assert_eq!(prepared.routes.len(), MAX_ROUTES);
        let reasons = prepared.rejected.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(reasons.iter().any(|reason| reason.contains("too many states, expected at most")), "{reasons:?}");
    }

    #[test]
    fn a_tool_gets_at_most_its_share_of_the_table() {
        let patterns: Vec<_> = (0..MAX_ROUTES - 1).map(|i| format!("/{i:02}\\.{}", "x\\.".repeat(330))).collect();
        let mut fields: Vec<_> = patterns.iter().map(|p| (p.as_str(), URL)).collect();
        fields.push((".*", URL));
        let prepared = fitted(&fields);
        // A record holds an escaped pattern twice: as written and unescaped.
        assert_eq!(texts(&prepared).last(), Some(&".*"));
        let shown: Vec<_> = texts(&prepared).iter().map(|text| &text[..3.min(text.len())]).collect();
        assert_eq!(shown[..shown.len() - 1], ["/00", "/01", "/02", "/03", "/04"]);
        let reasons = prepared.rejected.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(reasons.len(), MAX_ROUTES - 6);
        assert!(reasons[0].starts_with("the routes exceed their share of the table, 9558 bytes"), "{}", reasons[0]);
    }

    #[test]
    fn backends_beyond_the_share_are_rejected() {
        let name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(55));
        let urls: Vec<_> = (0..MAX_BACKENDS).map(|i| format!("http://{name}{i:02}:80")).collect();
        for kind in [Kind::Tool, Kind::Domain] {
            let prepared = fitted_raw(kind, &RawRoutes::Set(urls.iter().map(String::as_bytes).collect()));
            assert_eq!(prepared.routes[0].backends.len(), 37);
            assert_eq!(prepared.rejected.len(), 1);
        }
    }

    #[test]
    fn rejected_patterns_do_not_change_the_numbers_of_others() {
        let prepared =
            fitted(&[("^/a[0-9]", URL), ("(?:a|[ab]).{300}[cd]", URL), ("/static", URL), ("[0-9]$", URL), (".*", URL)]);
        assert_eq!(texts(&prepared), ["/static", "^/a[0-9]", "[0-9]$", ".*"]);
        assert_eq!(prepared.rejected.len(), 1);
        assert_eq!(crate::route::find_first(&prepared.automata, b"/x9", 2), Some(1));
    }
}
