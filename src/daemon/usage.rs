//! Command lines: units in their values, and how a wrong one ends.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::log::{ERROR_PRIORITY, is_stderr_journal};

/// The exit status of a wrong command line, sysexits.h.
pub const EX_USAGE: u8 = 64;

/// Prints what clap has to say: help and the version to standard output, status 0; a fault to standard error, [`EX_USAGE`].
pub fn exit_on(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told when this fails.
    let _ = if error.use_stderr() && is_stderr_journal() {
        let lines: String = error.to_string().lines().map(|line| format!("<{ERROR_PRIORITY}>{line}\n")).collect();
        io::stderr().write_all(lines.as_bytes())
    } else {
        error.print()
    };
    if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}

/// Reads `5s`, `500ms`, `2m` or `1h`; never zero.
///
/// # Errors
/// Anything else, shown beside an example of a right one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration {text:?}, expected e.g. \"5s\", \"500ms\" or \"2m\"");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    // A year is enough for anybody, and no sum of two overflows a clock.
    let most = 365 * 24 * 3_600_000;
    let total = number.checked_mul(milliseconds).filter(|total| (1..=most).contains(total)).ok_or_else(wrong)?;
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        for (text, milliseconds) in [("5s", 5000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "0s", "-5s", "5 s", "5d", "1.5s", "99999999999999999999s", "9999999999999999h"] {
            assert!(parse_duration(text).is_err_and(|e| e.contains("invalid duration")), "{text}");
        }
    }
}
