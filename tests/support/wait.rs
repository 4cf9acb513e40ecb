//! Waiting for a condition.

use std::thread;
use std::time::{Duration, Instant};

/// For what is meant to happen, however busy the machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits for a condition, [`SOON`] at most; how long that took.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) -> Duration {
    wait_within(SOON, what, condition)
}

/// The same for what takes its time.
#[track_caller]
pub fn wait_within(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}
