//! Results of earlier audits for each route: a fault counts only when it lasts.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::registry::GridRoute;
use crate::route::ToolName;

/// Audits in a row in which a port must refuse connections before its route is withdrawn.
pub const DEAD_AUDITS: u32 = 3;
/// Audits in a row with an unknown owner before a warning.
pub const UNKNOWN_AUDITS: u32 = 3;

/// What an audit found about one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// This user's server listens.
    OwnedBy(String),
    /// Connections are refused, or the host is gone.
    Refusing(String),
    /// The server accepts no connection now, on a host that answers.
    Busy(String),
    /// The server's owner is unknown, for this reason.
    Unknown(String),
    /// A route without an origin, to a host that cannot be a client.
    Outside,
    /// The tool's time in this audit was used up.
    NotReached,
}

/// One record for each route of the latest audit.
#[derive(Debug, Default)]
pub struct History(HashMap<Key, RouteRecord>);

/// A route with another URL is another route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tool: ToolName,
    pattern: String,
    url: String,
}

#[derive(Clone, Debug, Default)]
struct RouteRecord {
    /// Unix seconds of the registration, from the origin. A new registration resets the record.
    since: Option<u64>,
    last_audited: Option<Instant>,
    refusing: Option<Refusing>,
    unknown_audits: u32,
}

#[derive(Clone, Copy, Debug)]
struct Refusing {
    rounds: u32,
    since: Instant,
}

impl History {
    /// Forgets all other routes.
    pub fn keep_only(&mut self, routes: &[GridRoute]) {
        let records = routes.iter().map(|route| {
            let key = Key::of(route);
            let since = route.registrant.as_ref().map(|registrant| registrant.since);
            let record = self.0.remove(&key).filter(|record| record.since == since);
            (key, record.unwrap_or_else(|| RouteRecord { since, ..RouteRecord::default() }))
        });
        self.0 = records.collect();
    }

    /// `None` for a route that was never audited.
    pub fn last_audited(&self, route: &GridRoute) -> Option<Instant> {
        self.0.get(&Key::of(route))?.last_audited
    }

    /// Records an audit's result. True when the owner is unknown for exactly the [`UNKNOWN_AUDITS`]th time in a row.
    pub fn note(&mut self, route: &GridRoute, state: &RouteState, now: Instant) -> bool {
        let Some(record) = self.0.get_mut(&Key::of(route)) else { return false };
        if matches!(state, RouteState::NotReached) {
            return false;
        }
        record.last_audited = Some(now);
        record.refusing = match (state, record.refusing) {
            (RouteState::Refusing(_), Some(before)) => Some(Refusing { rounds: before.rounds + 1, ..before }),
            (RouteState::Refusing(_), None) => Some(Refusing { rounds: 1, since: now }),
            _ => None,
        };
        record.unknown_audits = if matches!(state, RouteState::Unknown(_)) { record.unknown_audits + 1 } else { 0 };
        record.unknown_audits == UNKNOWN_AUDITS
    }

    /// Whether a port has refused connections in [`DEAD_AUDITS`] audits and for `dead_after`, which also counts from the
    /// registration. `unix_now` is the time since the epoch.
    pub fn is_dead(&self, route: &GridRoute, dead_after: Duration, now: Instant, unix_now: Duration) -> bool {
        let Some(record) = self.0.get(&Key::of(route)) else { return false };
        let registered =
            record.since.map_or(Duration::MAX, |since| unix_now.saturating_sub(Duration::from_secs(since)));
        let is_long = |since| now.saturating_duration_since(since) >= dead_after && registered >= dead_after;
        record.refusing.is_some_and(|refusing| refusing.rounds >= DEAD_AUDITS && is_long(refusing.since))
    }

    /// The number of routes with an unknown owner in [`UNKNOWN_AUDITS`] audits in a row or more.
    pub fn long_unknown(&self) -> usize {
        self.0.values().filter(|record| record.unknown_audits >= UNKNOWN_AUDITS).count()
    }
}

impl Key {
    fn of(route: &GridRoute) -> Self {
        Self { tool: route.tool.clone(), pattern: route.pattern.clone(), url: route.url.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registrant;

    const MINUTE: Duration = Duration::from_secs(60);

    fn route(url: &str, since: Option<u64>) -> GridRoute {
        GridRoute {
            tool: ToolName::try_new(b"hello").unwrap(),
            pattern: ".*".into(),
            url: url.into(),
            backend: url.parse().unwrap(),
            origin: String::new(),
            registrant: since.map(|since| Registrant { owner: "tools.hello".into(), since }),
        }
    }

    fn refuses() -> RouteState {
        RouteState::Refusing("refused".into())
    }

    #[test]
    fn dead_port_has_refused_often_and_long_enough() {
        let route = route("http://10.0.0.1:80", Some(1000));
        let (mut history, now) = (History::default(), Instant::now());
        history.keep_only(std::slice::from_ref(&route));
        let is_dead = |history: &History, minutes: u32, unix_now: u64| {
            history.is_dead(&route, 5 * MINUTE, now + minutes * MINUTE, Duration::from_secs(unix_now))
        };
        for round in 0..3 {
            assert!(!is_dead(&history, 60, 9000), "{round}");
            history.note(&route, &refuses(), now + round * MINUTE);
        }
        assert!(!is_dead(&history, 4, 9000), "not long enough");
        assert!(!is_dead(&history, 5, 1299), "registered a short time ago");
        assert!(!is_dead(&history, 5, 900), "registered in the future");
        assert!(is_dead(&history, 5, 1300));
        history.note(&route, &RouteState::NotReached, now);
        assert!(is_dead(&history, 5, 1300), "an audit that did not reach the route changes nothing");
        for other in [
            RouteState::Busy("busy".into()),
            RouteState::Unknown("unknown".into()),
            RouteState::OwnedBy("tools.hello".into()),
        ] {
            let mut history = History(history.0.clone());
            history.note(&route, &other, now);
            history.note(&route, &refuses(), now);
            history.note(&route, &refuses(), now);
            assert!(!is_dead(&history, 60, 9000), "{other:?}");
        }
    }

    #[test]
    fn changed_routes_start_over_and_removed_routes_are_forgotten() {
        let (mut history, now) = (History::default(), Instant::now());
        let dead = |history: &History, route: &GridRoute| {
            history.is_dead(route, Duration::ZERO, now, Duration::from_secs(9000))
        };
        let (signed, later, elsewhere, unsigned) = (
            route("http://10.0.0.1:80", Some(1000)),
            route("http://10.0.0.1:80", Some(1001)),
            route("http://10.0.0.1:81", Some(1000)),
            route("http://10.0.0.1:80", None),
        );
        let mut refusing = |routes: &[GridRoute]| {
            history.keep_only(routes);
            for route in routes {
                (0..3).for_each(|_| _ = history.note(route, &refuses(), now));
                assert!(dead(&history, route));
            }
        };
        refusing(&[signed.clone(), elsewhere.clone()]);
        history.keep_only(&[signed.clone(), elsewhere.clone()]);
        assert!(dead(&history, &signed) && dead(&history, &elsewhere));
        history.keep_only(std::slice::from_ref(&later));
        assert!(!dead(&history, &later) && history.last_audited(&later).is_none());
        history.keep_only(std::slice::from_ref(&unsigned));
        assert!(!dead(&history, &unsigned));
        history.keep_only(&[]);
        assert!(history.0.is_empty());
    }

    #[test]
    fn lasting_unknown_owner_is_reported_once() {
        let route = route("http://10.0.0.1:80", None);
        let (mut history, now) = (History::default(), Instant::now());
        history.keep_only(std::slice::from_ref(&route));
        let unknown = RouteState::Unknown("no answer".into());
        let reported: Vec<_> = (0..5).map(|_| history.note(&route, &unknown, now)).collect();
        assert_eq!((reported, history.long_unknown()), (vec![false, false, true, false, false], 1));
        history.note(&route, &RouteState::OwnedBy("tools.hello".into()), now);
        assert_eq!(history.long_unknown(), 0);
    }
}
