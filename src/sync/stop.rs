//! The companion's stop condition.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest time between two checks of a [`StopCheck`].
pub(super) const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Returns true when the companion must end; checked at least every 100 ms.
pub type StopCheck<'a> = &'a (dyn Fn() -> bool + Sync);

/// Sleeps for `total`, or until `stop` returns true.
pub(super) fn pause(total: Duration, stop: StopCheck<'_>) {
    let until = Instant::now() + total;
    while !stop() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(STOP_CHECK_INTERVAL));
    }
}
