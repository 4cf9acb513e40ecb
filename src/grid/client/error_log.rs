//! The tool's ~/error.log: standard error of this program and of the command, as in the old stack.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::stdio::dup2_stderr;
use rustix::termios::isatty;
use tracing::warn;

/// Appends standard error to `error.log` in this home from now on, and returns its path. If standard error is a terminal, or the
/// log is not a regular file that can be opened, everything stays as it is.
pub fn redirect_stderr(home: &Path) -> Option<PathBuf> {
    if isatty(io::stderr()) {
        return None;
    }
    let path = home.join("error.log");
    match open_log(&path).and_then(|log| append_stderr_to(&log)) {
        Ok(()) => Some(path),
        Err(error) => {
            warn!("{error} while opening {path:?} for appending; errors are not logged there");
            None
        }
    }
}

/// Follows a link, but never waits for the reader of a FIFO.
fn open_log(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let log = open(path, flags, Mode::from_raw_mode(0o666))?;
    let is_regular = FileType::from_raw_mode(fstat(&log)?.st_mode) == FileType::RegularFile;
    if is_regular { Ok(log) } else { Err(io::Error::other("not a regular file")) }
}

/// Leaves standard error alone if it is that file already: the job's own log.
fn append_stderr_to(log: impl AsFd) -> io::Result<()> {
    let (log_stat, current) = (fstat(&log)?, fstat(io::stderr()));
    let is_same = current.is_ok_and(|current| (current.st_dev, current.st_ino) == (log_stat.st_dev, log_stat.st_ino));
    if !is_same {
        dup2_stderr(log)?;
    }
    Ok(())
}
