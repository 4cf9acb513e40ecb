//! The latest changes of the table, as notes in the zone.
//!
//! At most one per key and second: a tool that changes all the time must not displace all others. The last state of a key is
//! always noted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::clock;
use crate::route::{Kind, Route, RouteKey};
use crate::table::{Change, ChangeKind, Table, Writer};

/// Shortest time between two notes about a key.
const QUIET: Duration = Duration::from_secs(1);
/// Most keys that are remembered; further keys are noted at each change.
const MAX_REMEMBERED: usize = 10_000;
/// Shortest time between two looks at all remembered keys, for pending changes: pushes may come much more often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// When a key was last noted.
#[derive(Debug)]
struct Noted {
    at: Instant,
    /// A later change, not noted yet.
    pending: Option<ChangeKind>,
}

/// Notes changes.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    noted: HashMap<RouteKey, Noted>,
    /// When keys were last forgotten. A full scan may change many thousands of keys within [`QUIET`].
    pruned_at: Option<Instant>,
    /// When a pending change may be noted; `None` without one.
    flush_at: Option<Instant>,
    /// Set during a first load: that is no change.
    pub is_silent: bool,
}

impl ChangeLog {
    /// Notes a change of a record to these routes.
    pub fn note(&mut self, table: Table<'_>, key: &RouteKey, change: ChangeKind, routes: &[Route]) {
        if self.is_silent {
            return;
        }
        let now = Instant::now();
        if let Some(noted) = self.noted.get_mut(key)
            && now.saturating_duration_since(noted.at) < QUIET
        {
            noted.pending = Some(change);
            let due = noted.at + QUIET;
            self.flush_at = Some(self.flush_at.map_or(due, |at| at.min(due)));
            return;
        }
        self.prune(now);
        if self.noted.len() < MAX_REMEMBERED {
            self.noted.insert(key.clone(), Noted { at: now, pending: None });
        }
        let backend =
            routes.last().and_then(|route| route.backends.first()).map_or_else(String::new, ToString::to_string);
        add(table, key, change, routes.len(), backend);
    }

    /// Forgets keys that have not changed of late, if there are too many.
    fn prune(&mut self, now: Instant) {
        let is_due = self.pruned_at.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        if self.noted.len() >= MAX_REMEMBERED && is_due {
            self.pruned_at = Some(now);
            self.noted.retain(|_, noted| noted.pending.is_some() || now.saturating_duration_since(noted.at) < QUIET);
        }
    }

    /// Notes the current state of keys whose changes were too frequent.
    pub fn flush(&mut self, writer: &mut Writer<'_>) {
        let now = Instant::now();
        if self.flush_at.is_none_or(|at| at > now) {
            return;
        }
        self.flush_at = None;
        for (key, noted) in &mut self.noted {
            let Some(change) = noted.pending else { continue };
            if now.saturating_duration_since(noted.at) < QUIET {
                self.flush_at = Some(now + FLUSH_INTERVAL);
                continue;
            }
            *noted = Noted { at: now, pending: None };
            let current = writer.record(key.as_bytes()).map(|record| {
                let last = record.routes().last();
                let backend = last.and_then(|route| route.first_backend()).map_or_else(String::new, |b| b.to_string());
                (record.routes().count(), backend)
            });
            // It may have come and gone: the note tells how it is now.
            let change = match (&current, change) {
                (None, _) => ChangeKind::Removed,
                (Some(_), ChangeKind::Removed) => ChangeKind::Changed,
                (Some(_), change) => change,
            };
            let (routes, backend) = current.unwrap_or_default();
            add(writer.table(), key, change, routes, backend);
        }
    }
}

fn add(table: Table<'_>, key: &RouteKey, change: ChangeKind, routes: usize, backend: String) {
    let at = clock::unix_milliseconds();
    let number = table.source().next_change(at);
    let (kind, name) = Kind::split(key.as_bytes());
    let routes = u32::try_from(routes).unwrap_or(u32::MAX);
    table.notes().add_change(&Change { number, at, change, kind, name: name.to_vec(), routes, backend });
    table.source().set_changes(number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Pattern;
    use crate::table::{Capacity, OwnedTable};

    const CAPACITY: Capacity = Capacity { buckets: 8, cells: 100, tools: 50, notes: 41, ..Capacity::NONE };

    fn changes(table: Table<'_>) -> Vec<(String, &'static str, u32, String)> {
        let last = table.source().read().changes;
        let notes = (1..=last).filter_map(|number| table.notes().change(number));
        notes.map(|c| (String::from_utf8(c.name).unwrap(), c.change.as_str(), c.routes, c.backend)).collect()
    }

    #[test]
    fn frequent_changes_of_a_key_are_noted_once_a_second_with_the_last_state() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let mut writer = Writer::attach(table).0;
        let mut log = ChangeLog::default();
        let key = |name: &str| RouteKey::try_new(Kind::Tool, name.as_bytes()).unwrap();
        let routes = |port: u16| {
            [Route { pattern: Pattern::any(), backends: vec![format!("http://10.0.0.1:{port}").parse().unwrap()] }]
        };
        for port in 1..=5 {
            writer.publish(&key("a"), &routes(port)).unwrap();
            log.note(table, &key("a"), ChangeKind::Changed, &routes(port));
            // A busy machine must not end the quiet time.
            log.noted.get_mut(&key("a")).unwrap().at = Instant::now() + Duration::from_secs(3600);
        }
        log.note(table, &key("b"), ChangeKind::Removed, &[]);
        log.flush(&mut writer);
        let first = ("a".to_owned(), "changed", 1, "http://10.0.0.1:1".to_owned());
        let other = ("b".to_owned(), "removed", 0, String::new());
        assert_eq!(changes(table), [first.clone(), other.clone()]);
        log.noted.get_mut(&key("a")).unwrap().at = Instant::now().checked_sub(QUIET).unwrap();
        log.flush_at = Some(Instant::now());
        log.flush(&mut writer);
        let last = ("a".to_owned(), "changed", 1, "http://10.0.0.1:5".to_owned());
        assert_eq!(changes(table), [first, other, last]);
    }

    #[test]
    fn many_changes_at_once_look_for_old_keys_once() {
        let owned = OwnedTable::new(CAPACITY);
        let mut log = ChangeLog::default();
        let mut note = |number: usize| {
            let key = RouteKey::try_new(Kind::Tool, number.to_string().as_bytes()).unwrap();
            log.note(owned.table(), &key, ChangeKind::Added, &[]);
            // Long ago, for the next look.
            if let Some(noted) = log.noted.get_mut(&key) {
                noted.at = noted.at.checked_sub(2 * QUIET).unwrap();
            }
            (log.noted.len(), log.pruned_at)
        };
        (0..MAX_REMEMBERED - 1).for_each(|number| _ = note(number));
        assert_eq!(note(MAX_REMEMBERED), (MAX_REMEMBERED, None));
        let (left, pruned_at) = note(MAX_REMEMBERED + 1);
        assert!(left == 1 && pruned_at.is_some(), "{left}");
        (2..MAX_REMEMBERED + 1).for_each(|number| _ = note(MAX_REMEMBERED + number));
        assert_eq!(note(3 * MAX_REMEMBERED), (MAX_REMEMBERED, pruned_at), "not twice within a second");
        assert_eq!(owned.table().source().read().changes, 2 * MAX_REMEMBERED as u64 + 1, "all are noted");
    }

    #[test]
    fn a_first_load_is_no_change() {
        let owned = OwnedTable::new(CAPACITY);
        let mut log = ChangeLog { is_silent: true, ..ChangeLog::default() };
        let key = RouteKey::try_new(Kind::Tool, b"a").unwrap();
        log.note(owned.table(), &key, ChangeKind::Added, &[]);
        assert_eq!(changes(owned.table()), []);
    }
}
