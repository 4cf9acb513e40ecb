//! Numbers and times in words.

/// A number with commas between thousands.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The time from `then` to `now`, both in milliseconds: `2 s`, `4 min`, `3 h`, `5 d`.
pub fn ago(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// The time of day of Unix seconds: `14:05 UTC`.
pub fn of_clock(unix_seconds: u64) -> String {
    let minutes = unix_seconds / 60 % 1440;
    format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (value, want) in [(0, "0"), (999, "999"), (3012, "3,012"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), want);
        }
    }

    #[test]
    fn times_have_one_unit() {
        for (seconds, want) in
            [(0, "0 s"), (119, "119 s"), (240, "4 min"), (7200, "2 h"), (172_799, "47 h"), (432_000, "5 d")]
        {
            assert_eq!(ago(seconds * 1000 + 999, 0), want);
        }
        assert_eq!(ago(5, 1000), "0 s", "a clock that was set back");
        assert_eq!(of_clock(1_790_000_000), "14:13 UTC");
    }
}
