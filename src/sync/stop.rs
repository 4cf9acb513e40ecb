//! When the companion is to end.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest time between two looks at a [`Stop`].
pub(super) const STEP: Duration = Duration::from_millis(100);

/// Says when to end; asked at least every 100 ms.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Waits this long, or until it is to end.
pub(super) fn pause(total: Duration, stop: Stop<'_>) {
    let until = Instant::now() + total;
    while !stop() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(STEP));
    }
}
