//! The system clock as Unix time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Time since 1970-01-01 UTC; zero if the clock is set before that.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970-01-01 UTC.
pub fn unix_milliseconds() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds of the monotonic clock, which all processes share. Never 0.
pub fn monotonic_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0) + 1
}

/// Whole seconds since 1970-01-01 UTC.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}
