//! What the companion has to say, handed to whoever can log: bounded, and never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How loud an entry is; nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something an operator must mend.
    Error,
    /// Something went wrong that is expected to mend itself, or concerns one tool.
    Warn,
    /// A change of state.
    Notice,
    /// Repetitions and details.
    Info,
}

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How loud.
    pub level: Level,
    /// The line.
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
    /// A journal that holds `capacity` entries; what comes while it is full is counted and dropped.
    pub fn new(capacity: usize) -> (Self, JournalReader) {
        let (sender, receiver) = sync_channel(capacity);
        let lost = Arc::new(AtomicU64::new(0));
        (Self { sender, lost: Arc::clone(&lost) }, JournalReader { receiver, lost })
    }

    /// Adds an entry if there is room.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        if self.sender.try_send(Entry { level, text: text.into() }).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl JournalReader {
    /// The next entry, without waiting.
    pub fn next_entry(&self) -> Option<Entry> {
        if let Ok(entry) = self.receiver.try_recv() {
            return Some(entry);
        }
        let lost = self.lost.swap(0, Relaxed);
        (lost > 0).then(|| Entry { level: Level::Warn, text: format!("{lost} lines lost while the log was busy") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_journal_says_how_much_was_lost() {
        let (journal, reader) = Journal::new(2);
        for i in 0..5 {
            journal.log(Level::Notice, format!("line {i}"));
        }
        let texts: Vec<_> = std::iter::from_fn(|| reader.next_entry()).map(|e| e.text).collect();
        assert_eq!(texts, ["line 0", "line 1", "3 lines lost while the log was busy"]);
    }
}
