//! The source's rejected routes, and their log lines: one per rejection, rate limited.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::journal::{Journal, Level};
use crate::registry::{Rejection, RejectionReason};
use crate::table::PublishError;

/// Most keys with rejections that are counted and logged; no platform has that many.
const MAX_REMEMBERED: usize = 10_000;
/// Most log lines for one scan or one batch of pushes.
const LINES: usize = 20;
/// Shortest time between two reports about a key, and between two summaries: a tool that registers in a loop must not fill the log.
const QUIET: Duration = Duration::from_secs(10);

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
        self.by_key.retain(|key, _| keep(key));
        self.count = self.by_key.values().map(|r| r.len() as u64).sum();
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
    fn rejections_of_deleted_keys_are_forgotten() {
        let mut rejected = Rejected::default();
        rejected.replace(b"a", vec![rejection("a")]);
        rejected.replace(b"b", vec![rejection("b")]);
        rejected.retain(|tool| tool == b"a");
        assert_eq!(rejected.count(), 1);
    }
}
