//! The system's clock as numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970-01-01 UTC; zero if the clock stands before that.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in whole seconds.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}
