//! Times and numbers in words.

use jiff::Timestamp;

/// A number with commas: `3,012`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and a noun: `1 tool`, `3,012 tools`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A time span in its largest unit: `2 s`, `4 min`, `3 h`, `9 d`.
pub fn span(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds @ ..60.0 => format!("{seconds:.0} s"),
        seconds @ ..3600.0 => format!("{:.0} min", seconds / 60.0),
        seconds @ ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86400.0),
    }
}

/// A time and how long ago that was: `2026-11-28T12:00:00Z, 4 min ago`; `never` without one.
pub fn ago(at: Option<f64>, now: f64) -> String {
    match at {
        Some(at) if at > now + 1.0 => format!("{}, in {}", time(at), span(at - now)),
        Some(at) => format!("{}, {} ago", time(at), span(now - at)),
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
    fn numbers_have_commas() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), want);
        }
        assert_eq!((&*counted(1, "tool"), &*counted(3012, "tool")), ("1 tool", "3,012 tools"));
    }

    #[test]
    fn times_have_one_unit() {
        for (seconds, want) in [(-1.0, "0 s"), (59.0, "59 s"), (240.0, "4 min"), (7200.0, "2 h"), (777_600.0, "9 d")] {
            assert_eq!(span(seconds), want);
        }
        assert_eq!(ago(Some(1_790_000_000.0), 1_790_000_002.5), "2026-09-21T14:13:20Z, 2 s ago");
        assert_eq!(ago(Some(1_790_000_240.0), 1_790_000_000.0), "2026-09-21T14:17:20Z, in 4 min");
        assert_eq!(ago(None, 0.0), "never");
        assert_eq!(time(1e15), "1000000000000000");
    }
}
