//! Tells the monitor that a start command has come as far as the tool's own command: past the change of user and the login.
//!
//! `{begin}` in a start command stands for this program in another role. It prints [`MARK`] and becomes what follows it. A
//! tool that prints the mark itself, in its login, only has the start count against itself.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use memchr::memmem;

/// The first argument of the process that tells.
const ROLE: &str = "begin-start";
/// What it prints: no text, so that it does not show where people read what a command has said.
const MARK: &[u8] = b"\x02\x06\x03\n";

/// What Linux adds to the name of a program whose file has been replaced, as by an upgrade.
const REPLACED: &str = " (deleted)";

/// The words that `{begin}` stands for.
pub fn words() -> [String; 2] {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/webservicemonitor"));
    [installed(&program.display().to_string()).to_owned(), ROLE.to_owned()]
}

/// Where the program is now: the new file does the same.
fn installed(running: &str) -> &str {
    running.strip_suffix(REPLACED).unwrap_or(running)
}

/// Whether a command that printed this has come to its `{begin}`.
pub fn has_begun(printed: &[u8]) -> bool {
    memmem::find(printed, MARK).is_some()
}

/// What the process that tells does, when this is one: its exit status, if it cannot become the command.
pub fn begin_if_told(args: &[OsString]) -> Option<u8> {
    let [_, role, program, rest @ ..] = args else { return None };
    if role != ROLE {
        return None;
    }
    let mut stdout = io::stdout();
    let said = stdout.write_all(MARK).and_then(|()| stdout.flush());
    let error = said.err().unwrap_or_else(|| Command::new(program).args(rest).exec());
    eprintln!("{error} while starting {program:?}");
    // As a shell has it.
    Some(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_that_was_upgraded_names_the_new_program() {
        assert_eq!(installed("/usr/bin/webservicemonitor (deleted)"), "/usr/bin/webservicemonitor");
        assert_eq!(installed("/usr/bin/webservicemonitor"), "/usr/bin/webservicemonitor");
    }
}
