//! What companions have to log, in nginx's log.

use crate::sync::{JournalReader, Level};

/// Lines kept between two looks of the event loop.
pub(super) const JOURNAL_LINES: usize = 256;

/// Says all that is in a journal.
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
