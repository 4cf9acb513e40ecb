//! The source's rejected routes, and their log lines: one per rejection, rate limited.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::journal::{Journal, Level};
use crate::registry::{Rejection, RejectionReason, split_key};
use crate::route::Kind;
use crate::table::{PublishError, REASONS, RejectedNote, Table};

/// Most keys with rejections that are counted and logged; no platform has that many.
const MAX_REMEMBERED: usize = 10_000;
/// Most log lines for one scan or one batch of pushes.
const LINES: usize = 20;
/// Shortest time between two reports about a key, and between two summaries: a tool that registers in a loop must not fill the log.
const QUIET: Duration = Duration::from_secs(10);

/// Most rejections of one key that are shown as notes.
const NOTES_PER_KEY: usize = 8;
/// Shortest time between two updates of the notes.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Rejections by key of the store.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    by_key: HashMap<Box<[u8]>, Vec<Rejection>>,
    count: u64,
    /// New rejections since the last [`Rejected::report`]; only the first [`LINES`] are kept.
    fresh: Vec<Rejection>,
    /// Keys that were logged within [`QUIET`].
    reported: HashMap<Box<[u8]>, Instant>,
    /// New rejections without a line of their own since the last summary.
    unreported: usize,
    summed_at: Option<Instant>,
    /// Whether the notes are outdated.
    is_changed: bool,
    noted_at: Option<Instant>,
}

impl Rejected {
    /// Number of rejected routes.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the key has rejected routes.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// Replaces the rejections of one key.
    pub fn replace(&mut self, key: &[u8], rejections: Vec<Rejection>) {
        let before = self.by_key.remove(key).unwrap_or_default();
        self.is_changed |= before != rejections;
        self.count = self.count.saturating_sub(before.len() as u64);
        if rejections.is_empty() || self.by_key.len() >= MAX_REMEMBERED {
            return;
        }
        self.count += rejections.len() as u64;
        let is_quiet = self.reported.get(key).is_some_and(|at| at.elapsed() < QUIET);
        for rejection in rejections.iter().filter(|r| !before.contains(r)) {
            if !is_quiet && self.fresh.len() < LINES {
                self.fresh.push(rejection.clone());
            } else {
                self.unreported += 1;
            }
        }
        self.by_key.insert(key.into(), rejections);
    }

    /// Forgets the keys for which `keep` returns false.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let before = self.by_key.len();
        self.by_key.retain(|key, _| keep(key));
        self.is_changed |= before != self.by_key.len();
        self.count = self.by_key.values().map(|r| r.len() as u64).sum();
    }

    /// Shows the current rejections in the table's statistics, at most once a second.
    pub fn show(&mut self, table: Table<'_>) {
        if !self.is_changed || self.noted_at.is_some_and(|at| at.elapsed() < NOTE_INTERVAL) {
            return;
        }
        (self.is_changed, self.noted_at) = (false, Some(Instant::now()));
        let mut by_reason = [0; REASONS.len()];
        for rejection in self.by_key.values().flatten() {
            if let Some(count) = by_reason.get_mut(usize::from(reason_number(&rejection.reason))) {
                *count += 1;
            }
        }
        table.source().set_rejected(by_reason);
        let mut shown = self.by_key.values().flat_map(|rejections| rejections.iter().take(NOTES_PER_KEY));
        for at in 0..table.notes().rejected_capacity() {
            table.notes().set_rejected(at, shown.next().map(note).as_ref());
        }
    }

    /// Logs new rejections.
    pub fn report(&mut self, journal: &Journal) {
        let now = Instant::now();
        if !self.fresh.is_empty() {
            self.reported.retain(|_, at| at.elapsed() < QUIET);
        }
        for rejection in self.fresh.drain(..) {
            journal.log(Level::Warn, format!("route rejected: {rejection}"));
            if self.reported.len() < MAX_REMEMBERED {
                self.reported.insert(rejection.key, now);
            }
        }
        if self.unreported > 0 && self.summed_at.is_none_or(|at| at.elapsed() >= QUIET) {
            journal.log(Level::Warn, format!("route rejected: {} more, not shown", self.unreported));
            self.unreported = 0;
            self.summed_at = Some(now);
        }
    }
}

fn reason_number(reason: &RejectionReason) -> u8 {
    let number = REASONS.iter().position(|label| *label == reason.label());
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

fn note(rejection: &Rejection) -> RejectedNote {
    let (kind, name) = split_key(&rejection.key).unwrap_or((Kind::Tool, &rejection.key));
    RejectedNote {
        kind,
        name: name.to_vec(),
        pattern: rejection.pattern.as_ref().map(|pattern| pattern.to_vec()),
        reason: reason_number(&rejection.reason),
        text: rejection.reason.to_string(),
    }
}

/// The rejection of a whole key.
pub(super) fn rejection(key: &[u8], reason: RejectionReason) -> Rejection {
    Rejection::of(key, None, reason)
}

/// The rejection of routes for which the table has no room.
pub(super) fn table_full(key: &[u8], error: &PublishError) -> Rejection {
    // No figures that change with every tool: each scan would log the rejection again.
    let reason = match error {
        PublishError::TableFull { .. } => RejectionReason::NoRoom("the table is full; enlarge its zone".into()),
        error @ PublishError::TooLarge { .. } => RejectionReason::NoRoom(error.to_string()),
    };
    rejection(key, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RejectionReason;
    use crate::table::{Capacity, OwnedTable};

    fn rejection(tool: &str) -> Rejection {
        let reason = RejectionReason::WrongType("neither a hash nor a set");
        Rejection { key: format!("prefix:{tool}").into_bytes().into(), pattern: None, reason }
    }

    fn lines(rejected: &mut Rejected) -> Vec<String> {
        let (journal, reader) = Journal::new(100);
        rejected.report(&journal);
        std::iter::from_fn(|| reader.next_entry()).map(|e| e.text).collect()
    }

    #[test]
    fn a_rejection_is_logged_once_and_forgotten_when_fixed() {
        let mut rejected = Rejected::default();
        rejected.replace(b"a", vec![rejection("a")]);
        assert_eq!(lines(&mut rejected), [r#"route rejected: the key is neither a hash nor a set, tool="a""#]);
        rejected.replace(b"a", vec![rejection("a")]);
        assert!(lines(&mut rejected).is_empty());
        assert_eq!(rejected.count(), 1);
        rejected.replace(b"a", vec![]);
        assert_eq!(rejected.count(), 0);
    }

    #[test]
    fn a_key_that_keeps_changing_is_logged_once() {
        let mut rejected = Rejected::default();
        let mut written = Vec::new();
        for i in 0..100 {
            let reason = RejectionReason::NoRoom(format!("reason {i}"));
            rejected.replace(b"prefix:a", vec![Rejection { reason, ..rejection("a") }]);
            written.extend(lines(&mut rejected));
        }
        let want = [r#"route rejected: reason 0, tool="a""#, "route rejected: 1 more, not shown"];
        assert_eq!(written, want, "the others come in the next summary");
        assert_eq!((rejected.count(), rejected.unreported), (1, 98));
    }

    #[test]
    fn many_at_once_are_summed_up() {
        let mut rejected = Rejected::default();
        for i in 0..LINES + 5 {
            let tool = format!("t{i}");
            rejected.replace(tool.as_bytes(), vec![rejection(&tool)]);
        }
        let lines = lines(&mut rejected);
        assert_eq!((lines.len(), lines[LINES].as_str()), (LINES + 1, "route rejected: 5 more, not shown"));
    }

    #[test]
    fn every_reason_has_a_label_of_the_statistics() {
        let reasons = [
            RejectionReason::NotUtf8(String::new()),
            RejectionReason::TooManyRoutes(1),
            RejectionReason::TooManyBackends(1),
            RejectionReason::NoShare(1),
            RejectionReason::TooCostly,
            RejectionReason::Waiting,
            RejectionReason::Unreadable,
            RejectionReason::AndMore(1),
            RejectionReason::TooLarge,
            RejectionReason::WrongType(""),
            RejectionReason::Hidden,
            RejectionReason::NoRoom(String::new()),
        ];
        for reason in reasons {
            assert!(REASONS.get(usize::from(reason_number(&reason))).is_some(), "{reason:?}");
        }
    }

    #[test]
    fn notes_follow_the_rejections() {
        let capacity = Capacity { buckets: 8, cells: 100, tools: 50, notes: 9, ..Capacity::NONE };
        let owned = OwnedTable::new(capacity);
        let table = owned.table();
        let mut rejected = Rejected::default();
        for name in ["a", "b"] {
            rejected.replace(format!("prefix:{name}").as_bytes(), vec![rejection(name)]);
        }
        rejected.show(table);
        let mut names: Vec<_> = table.notes().rejected().map(|note| note.name).collect();
        names.sort();
        assert_eq!(names, [b"a", b"b"]);
        let wrong_type = REASONS.iter().position(|label| *label == "wrong_type").unwrap();
        assert_eq!(table.source().read().rejected[wrong_type], 2);
        rejected.replace(b"prefix:a", vec![]);
        rejected.noted_at = Some(Instant::now() + Duration::from_secs(3600));
        rejected.show(table);
        assert_eq!(table.notes().rejected().count(), 2, "at most once a second");
        rejected.noted_at = None;
        rejected.show(table);
        assert_eq!(table.notes().rejected().map(|note| note.name).collect::<Vec<_>>(), [b"b"]);
        assert_eq!(table.source().read().rejected[wrong_type], 1);
    }

    #[test]
    fn rejections_of_deleted_keys_are_forgotten() {
        let mut rejected = Rejected::default();
        rejected.replace(b"a", vec![rejection("a")]);
        rejected.replace(b"b", vec![rejection("b")]);
        rejected.retain(|tool| tool == b"a");
        assert_eq!(rejected.count(), 1);
    }
}
