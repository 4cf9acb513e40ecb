//! ~/error.log, where the grid and the web server write: checked before a start, shown after a failure and by `logs`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, minor, openat};
use rustix::io::Errno;
use tokio::time::sleep;

use crate::escape::escaped;
use crate::tenant::{FileProblem, TenantFile};

/// The file in the home.
const FILE: &str = "error.log";
/// The most of the log that a failure shows: a stack trace with its message above, and the runner's own lines below.
const MAX_TAIL_BYTES: u64 = 4096;
const MAX_TAIL_LINES: usize = 25;
/// Read at a time.
const BLOCK: u64 = 64 * 1024;
/// The time between two looks of `logs --follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

/// Why the log is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ErrorLogError {
    /// The grid could not write there.
    #[error("the log {path:?} cannot be written: {reason}; remove it, then start again")]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The log cannot be read.
    #[error("log {path:?}: {problem}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// There is none.
    #[error("there is no log {0:?} yet; the web service has written nothing")]
    Missing(PathBuf),
    /// Standard output is gone.
    #[error("{0} while printing the log")]
    Output(io::Error),
}

/// The log of a home.
#[derive(Clone, Debug)]
pub struct ErrorLog {
    path: PathBuf,
}

impl ErrorLog {
    /// The log in a home.
    pub fn new(home: &Path) -> Self {
        Self { path: home.join(FILE) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that it can be written, and creates it if it is missing. Returns its length in bytes.
    ///
    /// # Errors
    /// [`ErrorLogError::NotWritable`].
    pub fn check_writable(&self) -> Result<u64, ErrorLogError> {
        let not_writable =
            |reason: &str| ErrorLogError::NotWritable { path: self.path.clone(), reason: reason.to_owned() };
        // The grid follows links, too: to a directory of logs, or to /dev/null.
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = openat(CWD, &self.path, flags, Mode::from_raw_mode(0o644)).map_err(|error| match error {
            Errno::NXIO | Errno::NODEV | Errno::ISDIR => not_writable("it is not a regular file"),
            error => not_writable(&io::Error::from(error).to_string()),
        })?;
        let status = fstat(&file).map_err(|error| not_writable(&io::Error::from(error).to_string()))?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => Ok(u64::try_from(status.st_size).unwrap_or_default()),
            FileType::CharacterDevice if is_null(status.st_rdev) => Ok(0),
            _ => Err(not_writable("it is not a regular file")),
        }
    }

    /// The last lines that were written behind `start`, each indented and escaped; empty if there are none.
    pub fn tail_since(&self, start: u64) -> String {
        let read = || -> Option<Vec<u8>> {
            let file = TenantFile::open_as_tenant(&self.path).ok()??;
            let (size, mut file) = (file.size, file.into_file());
            // A log that has become shorter was rotated.
            let start = if start > size { 0 } else { start };
            file.seek(SeekFrom::Start(start.max(size.saturating_sub(MAX_TAIL_BYTES)))).ok()?;
            let mut bytes = Vec::new();
            file.take(MAX_TAIL_BYTES).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(MAX_TAIL_LINES)..];
        last.iter().map(|line| format!("\n    {}", escaped(line))).collect()
    }

    /// Prints the last `count` lines, and with `follow` all that come later, through rotation and truncation, until it is
    /// interrupted or the output is closed.
    ///
    /// # Errors
    /// The log is missing or unreadable, or standard output fails.
    pub async fn print(&self, count: u32, follow: bool, mut out: impl Write) -> Result<(), ErrorLogError> {
        let Some(mut open) = self.open()? else { return Err(ErrorLogError::Missing(self.path.clone())) };
        let start = start_of_last(&mut open.file, open.position, count).map_err(|error| self.unreadable(error))?;
        open.position = start;
        loop {
            self.copy(&mut open, &mut out)?;
            if !follow {
                return Ok(());
            }
            sleep(FOLLOW_INTERVAL).await;
            // What was written before the rotation comes first.
            self.copy(&mut open, &mut out)?;
            let length = open.file.metadata().map_err(|error| self.unreadable(error))?.len();
            if length < open.position {
                open.position = 0;
            }
            match self.open() {
                Ok(Some(now)) if now.identity != open.identity => open = OpenLog { position: 0, ..now },
                // Gone or replaced by something else: the old one goes on.
                _ => {}
            }
        }
    }

    /// Opens the log, at its end.
    fn open(&self) -> Result<Option<OpenLog>, ErrorLogError> {
        let problem = |problem| ErrorLogError::Unreadable { path: self.path.clone(), problem };
        let Some(file) = TenantFile::open_as_tenant(&self.path).map_err(problem)? else { return Ok(None) };
        let (position, file) = (file.size, file.into_file());
        let status = file.metadata().map_err(|error| self.unreadable(error))?;
        Ok(Some(OpenLog { file, identity: (status.dev(), status.ino()), position }))
    }

    /// Prints what is behind the position, at most up to the present end.
    fn copy(&self, open: &mut OpenLog, out: &mut impl Write) -> Result<(), ErrorLogError> {
        open.file.seek(SeekFrom::Start(open.position)).map_err(|error| self.unreadable(error))?;
        let mut block = vec![0; BLOCK as usize];
        loop {
            let read = open.file.read(&mut block).map_err(|error| self.unreadable(error))?;
            if read == 0 {
                return out.flush().map_err(ErrorLogError::Output);
            }
            open.position += read as u64;
            out.write_all(&block[..read]).map_err(ErrorLogError::Output)?;
        }
    }

    fn unreadable(&self, error: io::Error) -> ErrorLogError {
        ErrorLogError::Unreadable { path: self.path.clone(), problem: error.into() }
    }
}

/// The log while it is printed.
struct OpenLog {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    position: u64,
}

/// Whether a device is /dev/null, null(4).
fn is_null(device: u64) -> bool {
    (major(device), minor(device)) == (1, 3)
}

/// The position of the last `count` lines of the first `end` bytes. Reads backwards, in constant memory.
fn start_of_last(file: &mut File, end: u64, count: u32) -> io::Result<u64> {
    let mut wanted = u64::from(count);
    let mut at = end;
    let mut block = Vec::new();
    let mut is_last_byte = true;
    if wanted == 0 {
        return Ok(end);
    }
    while at > 0 {
        let begin = at.saturating_sub(BLOCK);
        block.resize(usize::try_from(at - begin).unwrap_or_default(), 0);
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block)?;
        for (offset, byte) in block.iter().enumerate().rev() {
            // The line end at the end of the file ends the last line.
            if *byte == b'\n' && !std::mem::take(&mut is_last_byte) {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(begin + offset as u64 + 1);
                }
            }
            is_last_byte = false;
        }
        at = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn last_lines_are_found_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(200_000);
        for (content, count, want) in [
            ("", 3, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\nb\n", 0, ""),
            (&format!("a\n{long}\nb\n"), 2, &format!("{long}\nb\n")),
        ] {
            fs::write(&path, content).unwrap();
            let mut file = File::open(&path).unwrap();
            let start = start_of_last(&mut file, content.len() as u64, count).unwrap();
            assert_eq!(&content[usize::try_from(start).unwrap()..], want, "{count}");
        }
    }

    #[test]
    fn tail_has_what_came_since_the_start() {
        let home = tempfile::tempdir().unwrap();
        let log = ErrorLog::new(home.path());
        assert_eq!(log.tail_since(0), "");
        assert_eq!(log.check_writable().unwrap(), 0);
        fs::write(log.path(), "old\nnew \x1b[31m\nlast").unwrap();
        assert_eq!(log.tail_since(4), "\n    new \\u{1b}[31m\n    last");
        assert_eq!(log.tail_since(900), "\n    old\n    new \\u{1b}[31m\n    last", "rotated");
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        fs::write(log.path(), many).unwrap();
        assert_eq!(log.tail_since(0).matches('\n').count(), MAX_TAIL_LINES);
        assert!(log.tail_since(0).ends_with("\n    99"));
    }
}
