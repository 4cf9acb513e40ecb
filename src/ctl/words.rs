//! Times in words.

use jiff::Timestamp;

use crate::text::span;

/// A time and how long ago that was: `2026-11-28T12:00:00Z, 4 min ago`; `never` without one.
pub fn ago(at: Option<f64>, now: f64) -> String {
    match at {
        Some(at) if at > now + 1.0 => format!("{}, in {}", time(at), span((at - now) as u64)),
        Some(at) => format!("{}, {} ago", time(at), span((now - at) as u64)),
        None => "never".into(),
    }
}

/// Unix seconds as UTC: `2026-11-28T12:00:00Z`.
pub fn time(seconds: f64) -> String {
    // A number that is no time of the calendar is shown as it is.
    Timestamp::from_second(seconds as i64).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_with_their_distance() {
        assert_eq!(ago(Some(1_790_000_000.0), 1_790_000_002.5), "2026-09-21T14:13:20Z, 2 s ago");
        assert_eq!(ago(Some(1_790_000_240.0), 1_790_000_000.0), "2026-09-21T14:17:20Z, in 4 min");
        assert_eq!(
            ago(Some(1_790_000_000.5), 1_790_000_000.0),
            "2026-09-21T14:13:20Z, 0 s ago",
            "a clock that was set back"
        );
        assert_eq!(ago(None, 0.0), "never");
        assert_eq!(time(1e15), "1000000000000000");
    }
}
