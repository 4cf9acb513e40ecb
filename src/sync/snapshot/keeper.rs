//! Keeps the snapshot up to date, on a thread of its own: it is one more reader of the table, and may wait for a disk.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{SnapshotError, SnapshotSettings, encode, file};
use crate::sync::journal::{Journal, Level};
use crate::table::{LoadedFrom, Table};

/// A changed table is written at most so often.
const SPACING: Duration = Duration::from_secs(5);
/// An unchanged one is written again when the last comparison is so much later: its age is told by that.
const REFRESH_SECONDS: u64 = 3600;
/// So many times in a row another process may be found writing before that is told.
const BUSY_TIMES: u32 = 12;
/// Longest time between two looks.
const STEP: Duration = Duration::from_millis(100);

/// What is known of the file.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Written {
    changes: u64,
    synced_at: u64,
}

/// Writes the snapshot whenever it is due, until `is_over`, and then once more.
pub(crate) fn keep(table: Table<'_>, settings: &SnapshotSettings, journal: &Journal, is_over: &AtomicBool) {
    // A new companion need not write what the former has just written, unless it changes.
    let mut written: Option<Written> = None;
    let mut next = Instant::now();
    let mut trouble: Option<String> = None;
    let mut busy = 0;
    loop {
        let over = is_over.load(Relaxed);
        let now = Written { changes: table.header().changes(), synced_at: table.header().synced_at() };
        let due = table.header().loaded_from() == Some(LoadedFrom::Source)
            && written.is_none_or(|written| {
                written.changes != now.changes || now.synced_at > written.synced_at.saturating_add(REFRESH_SECONDS)
            });
        if due && (over || Instant::now() >= next) {
            let outcome = file::replace(&settings.path, &encode(table));
            // The other nginx of an upgrade writes the same; for a while.
            busy = if matches!(outcome, Err(SnapshotError::Busy)) { busy + 1 } else { 0 };
            if !(1..BUSY_TIMES).contains(&busy) {
                report(settings, journal, &mut trouble, outcome.as_ref().err());
            }
            if outcome.is_ok() {
                written = Some(now);
            }
            next = Instant::now() + SPACING;
        }
        if over {
            return;
        }
        std::thread::park_timeout(STEP);
    }
}

/// One line when the trouble begins or becomes another, one when it is over.
fn report(settings: &SnapshotSettings, journal: &Journal, trouble: &mut Option<String>, error: Option<&SnapshotError>) {
    let path = settings.path.display();
    let said = error.map(SnapshotError::to_string);
    match (&said, &*trouble) {
        (Some(reason), before) if before.as_ref() != Some(reason) => {
            journal.log(Level::Warn, format!("{reason} while writing the snapshot, path={path}"));
        }
        (None, Some(_)) => journal.log(Level::Notice, format!("the snapshot is written again, path={path}")),
        _ => {}
    }
    *trouble = said;
}
