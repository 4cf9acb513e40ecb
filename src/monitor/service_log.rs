//! Appends lines for maintainers to a tool's service.log, by a helper process that runs as the tool's user.
//!
//! Whatever the tool puts in place of the file, the helper has no more rights than the tool itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, renameat};
use rustix::process::{geteuid, getuid};
use tokio::process::Command;
use tracing::{debug, warn};

use crate::subprocess::run_with_input;
use crate::tenant::{Account, MIN_UID};

/// The file, in the tool's directory.
const FILE: &str = "service.log";
/// The name of the previous file after rotation.
const OLD: &str = "service.log.1";
/// The size at which the file is rotated.
const MAX_BYTES: i64 = 1024 * 1024;
/// The longest line, in bytes.
const MAX_TEXT_BYTES: u64 = 16 * 1024;
/// The time for one line, in case the file system hangs.
const LIMIT: Duration = Duration::from_secs(5);
/// The first argument of the helper process.
const ROLE: &str = "append-service-log";

/// A line for a tool's service.log.
#[derive(Debug)]
pub struct ServiceLogEntry<'a> {
    /// The tool's user.
    pub account: &'a Account,
    /// The tool's directory.
    pub home: &'a Path,
    /// The line, without time and program.
    pub text: String,
}

impl ServiceLogEntry<'_> {
    /// Appends the line, through the helper process. A failure is only logged.
    pub async fn write(self) {
        let Account { name, uid, gid } = self.account;
        // The running program, even if its file was replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg(ROLE).arg(self.home).env_clear().current_dir("/");
        if geteuid().is_root() {
            // Setting the uid also drops root's supplementary groups.
            command.gid(*gid).uid(*uid);
        } else if getuid().as_raw() != *uid {
            debug!(account = name, "service.log not written; only root can switch to the tool's user");
            return;
        }
        // Through a pipe: any user can read a process's arguments.
        if let Err(error) = run_with_input(command, self.text.as_bytes(), LIMIT, 1024, &mut Vec::new()).await {
            warn!(account = name, %error, "service.log not written; the maintainer does not see the reason");
        }
    }
}

/// Runs the helper process, if the arguments say that this is one. Reads the line from standard input. Returns the exit status.
pub fn run_as_log_appender(args: &[std::ffi::OsString]) -> Option<u8> {
    let [_, role, home] = args else { return None };
    if role != ROLE {
        return None;
    }
    let mut text = Vec::new();
    let read = io::stdin().take(MAX_TEXT_BYTES).read_to_end(&mut text);
    match read.and_then(|_| append(Path::new(home), &String::from_utf8_lossy(&text))) {
        Ok(()) => Some(0),
        Err(error) => {
            eprintln!("{error} while writing {FILE}");
            Some(1)
        }
    }
}

fn append(home: &Path, text: &str) -> io::Result<()> {
    let uid = geteuid().as_raw();
    if uid < MIN_UID || getuid().as_raw() != uid {
        return Err(io::Error::other("not a tool's user"));
    }
    let directory = openat(CWD, home, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let open = || -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(&directory, FILE, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::from_raw_mode(0o644))?;
        Ok(File::from(file))
    };
    let mut file = open()?;
    let status = fstat(&file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || status.st_uid != uid {
        return Err(io::Error::other("not a regular file owned by the tool"));
    }
    if status.st_size >= MAX_BYTES {
        renameat(&directory, FILE, &directory, OLD)?;
        file = open()?;
    }
    let time = jiff::Timestamp::now();
    let time = time.round(jiff::Unit::Second).unwrap_or(time);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // In one write: other processes append too.
    file.write_all(format!("{time} webservicemonitor: {line}\n").as_bytes())
}
