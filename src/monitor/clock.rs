//! Times for people.

use std::time::Duration;

/// `1 h`, `90 s`.
pub fn words_of(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{time:?}"),
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
