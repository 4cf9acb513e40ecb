//! Limits log lines that tenants can cause at will.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::nginx::ffi::timer::now_milliseconds;

/// Minimum milliseconds between two lines.
const INTERVAL: u64 = 1000;

/// Admits one line per second in this worker.
pub(super) struct LogLimit {
    /// Time of the last line, in milliseconds; 0 before the first.
    logged_at: AtomicU64,
    /// Number of lines suppressed since.
    suppressed: AtomicU64,
}

impl LogLimit {
    pub const fn new() -> Self {
        Self { logged_at: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// The number of lines suppressed since the last one. `None` if this one is to be suppressed too.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(now_milliseconds())
    }

    fn admit_at(&self, now: u64) -> Option<u64> {
        let last = self.logged_at.load(Relaxed);
        if last != 0 && now.saturating_sub(last) < INTERVAL {
            self.suppressed.fetch_add(1, Relaxed);
            return None;
        }
        self.logged_at.store(now, Relaxed);
        Some(self.suppressed.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_second_is_admitted() {
        let limit = LogLimit::new();
        let admitted = [5000, 5001, 5999, 6000, 6500, 9000].map(|now| limit.admit_at(now));
        assert_eq!(admitted, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
