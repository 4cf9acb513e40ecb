//! Log lines of the companions, written to nginx's log.

use crate::sync::{JournalReader, Level};

/// Capacity of a journal: lines between two runs of [`drain`].
pub(super) const JOURNAL_LINES: usize = 256;

/// Writes all lines of a journal.
pub(super) fn drain(journal: &JournalReader, log: impl Fn(u32, &str)) {
    while let Some(entry) = journal.next_entry() {
        let level = match entry.level {
            Level::Error => nginx_sys::NGX_LOG_ERR,
            Level::Warn => nginx_sys::NGX_LOG_WARN,
            Level::Notice => nginx_sys::NGX_LOG_NOTICE,
            Level::Info => nginx_sys::NGX_LOG_INFO,
        };
        log(level, &format!("urlproxy: {}", entry.text));
    }
}
