//! A bounded queue of log lines from the companion to the thread that can log; writing never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Severity, named as nginx names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// An operator must act.
    Error,
    /// A failure that is temporary or concerns one tool.
    Warn,
    /// A change of state.
    Notice,
    /// Repeated failures and details.
    Info,
}

/// One log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Severity.
    pub level: Level,
    /// The message, without prefix or newline.
    pub text: String,
}

/// The writing end.
#[derive(Clone, Debug)]
pub struct Journal {
    sender: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

/// The reading end.
#[derive(Debug)]
pub struct JournalReader {
    receiver: Receiver<Entry>,
    lost: Arc<AtomicU64>,
}

impl Journal {
    /// A journal of `capacity` entries; when it is full, further entries are counted and dropped.
    pub fn new(capacity: usize) -> (Self, JournalReader) {
        let (sender, receiver) = sync_channel(capacity);
        let lost = Arc::new(AtomicU64::new(0));
        (Self { sender, lost: Arc::clone(&lost) }, JournalReader { receiver, lost })
    }

    /// Adds an entry, or counts it as dropped if the journal is full.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        if self.sender.try_send(Entry { level, text: text.into() }).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl JournalReader {
    /// The next entry, without blocking.
    pub fn next_entry(&self) -> Option<Entry> {
        if let Ok(entry) = self.receiver.try_recv() {
            return Some(entry);
        }
        let lost = self.lost.swap(0, Relaxed);
        (lost > 0).then(|| Entry { level: Level::Warn, text: format!("log queue full; lines dropped, lines={lost}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_journal_counts_dropped_lines() {
        let (journal, reader) = Journal::new(2);
        for i in 0..5 {
            journal.log(Level::Notice, format!("line {i}"));
        }
        let texts: Vec<_> = std::iter::from_fn(|| reader.next_entry()).map(|e| e.text).collect();
        assert_eq!(texts, ["line 0", "line 1", "log queue full; lines dropped, lines=3"]);
    }
}
