//! Marks the point where a start command reaches the tool's own command, after the change of user and the login.
//!
//! `{begin}` in a start command stands for this program in a helper role: it prints [`MARK`] and then executes the words that
//! follow, with [`MONITOR_VARIABLE`] in their environment. A tool that prints the mark in its login only makes the start count
//! against its own limit.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use memchr::memmem;

use crate::tenant::MONITOR_VARIABLE;

/// The first argument of the helper process.
const ROLE: &str = "begin-start";
/// The marker: control characters, which do not appear where a command's output is shown.
const MARK: &[u8] = b"\x02\x06\x03\n";

/// Linux appends this to the path of a program whose file was replaced, as by an upgrade.
const REPLACED: &str = " (deleted)";

/// The words that replace `{begin}`.
pub fn words() -> [String; 2] {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/webservicemonitor"));
    [installed(&program.display().to_string()).to_owned(), ROLE.to_owned()]
}

/// The installed program's path; a replaced file has the same role.
fn installed(running: &str) -> &str {
    running.strip_suffix(REPLACED).unwrap_or(running)
}

/// Whether a command with this output reached its `{begin}`.
pub fn has_begun(printed: &[u8]) -> bool {
    memmem::find(printed, MARK).is_some()
}

/// Runs the helper process, if the arguments say that this is one. Returns the exit status if the command cannot be executed.
pub fn run_as_begin_marker(args: &[OsString]) -> Option<u8> {
    let [_, role, program, rest @ ..] = args else { return None };
    if role != ROLE {
        return None;
    }
    let mut stdout = io::stdout();
    let said = stdout.write_all(MARK).and_then(|()| stdout.flush());
    let error = said.err().unwrap_or_else(|| Command::new(program).args(rest).env(MONITOR_VARIABLE, "1").exec());
    eprintln!("{error} while starting {program:?}");
    // The statuses of a shell.
    Some(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgraded_monitor_names_the_new_program() {
        assert_eq!(installed("/usr/bin/webservicemonitor (deleted)"), "/usr/bin/webservicemonitor");
        assert_eq!(installed("/usr/bin/webservicemonitor"), "/usr/bin/webservicemonitor");
    }
}
