//! Writes the snapshot, on a separate thread: it is one more reader of the table, and may block on the disk.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{SnapshotError, SnapshotSettings, encode, file};
use crate::clock;
use crate::sync::journal::{Journal, Level};
use crate::table::{LoadedFrom, SnapshotState, Table};

/// Shortest time between two writes.
const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// An unchanged table is written again when it was verified this much later: the snapshot's age counts from then.
const REFRESH_SECONDS: u64 = 3600;
/// Attempts in a row that may find another process writing before that is logged.
const MAX_SILENT_BUSY: u32 = 12;
/// Longest time between two checks.
const STEP: Duration = Duration::from_millis(100);

/// The state of the table that was last written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Written {
    changes: u64,
    synced_at: u64,
}

/// Writes a table's snapshot whenever it is due.
pub(crate) struct SnapshotWriter<'a> {
    table: Table<'a>,
    settings: &'a SnapshotSettings,
    journal: &'a Journal,
    /// `None` at first: a new companion writes the table at least once.
    written: Option<Written>,
    /// The error of the last write, if it failed.
    failure: Option<String>,
    /// Attempts in a row that found another process writing.
    busy: u32,
}

impl<'a> SnapshotWriter<'a> {
    pub fn new(table: Table<'a>, settings: &'a SnapshotSettings, journal: &'a Journal) -> Self {
        Self { table, settings, journal, written: None, failure: None, busy: 0 }
    }

    /// Runs until `is_over`, then writes once more if due.
    pub fn run(&mut self, is_over: &AtomicBool) {
        let mut next = Instant::now();
        loop {
            let over = is_over.load(Relaxed);
            if (over || Instant::now() >= next) && self.write_if_due() {
                next = Instant::now() + MIN_WRITE_INTERVAL;
            }
            if over {
                return;
            }
            std::thread::park_timeout(STEP);
        }
    }

    /// Returns whether it tried to write.
    fn write_if_due(&mut self) -> bool {
        let header = self.table.header();
        let now = Written { changes: header.changes(), synced_at: header.synced_at() };
        let is_due = header.loaded_from() == Some(LoadedFrom::Source)
            && self.written.is_none_or(|written| {
                written.changes != now.changes || now.synced_at > written.synced_at.saturating_add(REFRESH_SECONDS)
            });
        if is_due {
            let outcome = file::replace(&self.settings.path, &encode(self.table));
            // During an upgrade the other nginx writes the same routes for a while.
            self.busy = if matches!(outcome, Err(SnapshotError::Busy)) { self.busy + 1 } else { 0 };
            if !(1..MAX_SILENT_BUSY).contains(&self.busy) {
                self.report(outcome.as_ref().err());
            }
            match &outcome {
                Ok(()) => self.table.source().set_snapshot(SnapshotState::Written(clock::unix_milliseconds())),
                Err(SnapshotError::Busy) => {}
                Err(_) => self.table.source().set_snapshot(SnapshotState::Failed),
            }
            if outcome.is_ok() {
                self.written = Some(now);
            }
        }
        is_due
    }

    /// Logs once when writing begins to fail or fails for another reason, and once when it succeeds again.
    fn report(&mut self, error: Option<&SnapshotError>) {
        let path = self.settings.path.display();
        let failure = error.map(SnapshotError::to_string);
        match (&failure, &self.failure) {
            (Some(reason), before) if before.as_ref() != Some(reason) => {
                let text = format!("writing the snapshot failed: {reason}; the file may be outdated, path={path}");
                self.journal.log(Level::Warn, text);
            }
            (None, Some(_)) => self.journal.log(Level::Notice, format!("snapshot written again, path={path}")),
            _ => {}
        }
        self.failure = failure;
    }
}
