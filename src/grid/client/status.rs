//! Exit statuses: those of sysexits.h, and those that shells use for commands.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// A file cannot be read.
pub const EX_NOINPUT: u8 = 66;
/// A port or server is not available.
pub const EX_UNAVAILABLE: u8 = 69;
/// An unexpected error of the system.
pub const EX_OSERR: u8 = 71;
/// A later try may succeed.
pub const EX_TEMPFAIL: u8 = 75;
/// The user may not do this.
pub const EX_NOPERM: u8 = 77;
/// A file's content is invalid.
pub const EX_CONFIG: u8 = 78;

/// The status that a shell sets for a command that has ended.
pub fn of_exit(status: ExitStatus) -> u8 {
    let signal = || status.signal().map_or(EX_OSERR, |signal| 128u8.wrapping_add(signal as u8));
    status.code().map_or_else(signal, |code| code as u8)
}

/// The status that a shell sets for a command that could not be started.
pub fn of_start_error(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => EX_OSERR,
        _ => 126,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        for (raw, want) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (15, 143), (9, 137), (11 | 0x80, 139)] {
            assert_eq!(of_exit(ExitStatus::from_raw(raw)), want, "{raw:#x}");
        }
        for (kind, want) in [(io::ErrorKind::NotFound, 127), (io::ErrorKind::PermissionDenied, 126)] {
            assert_eq!(of_start_error(&kind.into()), want, "{kind}");
        }
    }
}
