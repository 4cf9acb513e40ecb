//! Command lines: durations, and the exit status of usage errors.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::log::{ERROR_PRIORITY, is_stderr_journal};
use crate::units;

/// Exit status of usage errors, sysexits.h.
pub const EX_USAGE: u8 = 64;

/// Prints clap's message: help and version to standard output, status 0; errors to standard error, [`EX_USAGE`].
pub fn exit_on(error: &clap::Error) -> ExitCode {
    // A failure to print cannot be reported anywhere.
    let _ = if error.use_stderr() && is_stderr_journal() {
        let lines: String = error.to_string().lines().map(|line| format!("<{ERROR_PRIORITY}>{line}\n")).collect();
        io::stderr().write_all(lines.as_bytes())
    } else {
        error.print()
    };
    if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}

/// A year. The sum of two such durations does not overflow a clock.
const MAX_DURATION: Duration = Duration::from_secs(365 * 86_400);

/// Whether a command line accepts this duration.
pub(super) fn is_in_range(time: Duration) -> bool {
    !time.is_zero() && time <= MAX_DURATION
}

/// Parses a duration of a command line: `5s`, `500ms`, `1h30m`, `7d` or a number of seconds; more than zero, at most a year.
///
/// # Errors
/// The invalid text, with examples of valid ones.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text).filter(|time| is_in_range(*time));
    time.ok_or_else(|| format!("invalid duration {text:?}, expected e.g. \"5s\", \"500ms\" or \"1h30m\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_positive_and_at_most_a_year() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("5", 5000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "s", "0", "0s", "-5s", "5 s", "5y", "1.5s", "365d1ms", "99999999999999999999s", "9999999999999999h"]
        {
            assert!(parse_duration(text).is_err_and(|e| e.contains("invalid duration")), "{text}");
        }
    }
}
