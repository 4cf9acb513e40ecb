//! Waits for conditions.

use std::thread;
use std::time::{Duration, Instant};

/// Time for expected events, generous enough for a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits for a condition, at most [`SOON`]; returns how long that took.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) -> Duration {
    wait_within(SOON, what, condition)
}

/// Like [`wait_for`], with another deadline.
#[track_caller]
pub fn wait_within(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "timeout while waiting for: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}
