//! Durations and sizes in nginx's notation, the same for directives and command lines.

use std::time::Duration;

/// Parses `500ms`, `60s`, `2m`, `1h30m`, `7d`; a plain number is seconds. `None` if invalid, or if it overflows.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "" if tail.is_empty() => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// Parses `512k` or `512KiB`, `16m` or `16MiB`, `1g` or `1GiB` into bytes; a plain number is bytes. `None` if invalid, or if it
/// overflows.
pub fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let unit = match unit {
        "" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("60", 60_000),
            ("60s", 60_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1m30", 90_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "soon", "s", "-1", "1.5s", "1y", "1s 2", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1", 1), ("512k", 512 << 10), ("16m", 16 << 20), ("2G", 2 << 30), ("64KiB", 64 << 10), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "16mb", "16mib", "1MB", "1 MiB", "MiB", "-1", "+1", "1.5m", "99999999999g", "é"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
