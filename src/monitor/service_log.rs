//! Tells a tool's maintainer, in the tool's own service.log: written by a process that has become the tool's user.
//!
//! Whatever the tool puts in place of that file, the system lets it do no more than its user may.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, renameat};
use rustix::process::{geteuid, getuid};
use tokio::process::Command;
use tracing::{debug, warn};

use super::account::Account;
use super::command::converse;
use super::manifest::MIN_UID;

/// The file, in the tool's directory.
const FILE: &str = "service.log";
/// What it is called when it has become too large; that which was called so is gone then.
const OLD: &str = "service.log.1";
/// Above, another is begun.
const MAX_BYTES: i64 = 1024 * 1024;
/// What is read of a text, in bytes.
const MAX_TEXT_BYTES: u64 = 16 * 1024;
/// For one line. A file system that hangs costs no more.
const LIMIT: Duration = Duration::from_secs(5);
/// The first argument of the process that writes.
const ROLE: &str = "append-service-log";

/// A line for a tool.
#[derive(Debug)]
pub struct Note<'a> {
    /// The tool's user.
    pub account: &'a Account,
    /// The tool's directory.
    pub home: &'a Path,
    /// What to say, on one line.
    pub text: String,
}

impl Note<'_> {
    /// Has it written. A tool whose log cannot be written is not helped by a louder failure than a line in ours.
    pub async fn write(self) {
        let Account { name, uid, gid } = self.account;
        // This very program, even when its file has been replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg(ROLE).arg(self.home).env_clear().current_dir("/");
        if geteuid().is_root() {
            // Root's groups go with the uid.
            command.gid(*gid).uid(*uid);
        } else if getuid().as_raw() != *uid {
            debug!(tool = name, "its service.log is not written: only root can become its user");
            return;
        }
        // Everybody can read a process's arguments; a pipe is between the two.
        if let Err(error) = converse(command, self.text.as_bytes(), LIMIT, 1024, &mut Vec::new()).await {
            warn!(tool = name, %error, "its service.log is not written");
        }
    }
}

/// What the process that writes does, when this is one: its exit status. The text is on its standard input.
pub fn append_if_told(args: &[std::ffi::OsString]) -> Option<u8> {
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
        return Err(io::Error::other("no regular file of the tool's own"));
    }
    if status.st_size >= MAX_BYTES {
        renameat(&directory, FILE, &directory, OLD)?;
        file = open()?;
    }
    let time = jiff::Timestamp::now();
    let time = time.round(jiff::Unit::Second).unwrap_or(time);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // At once: others append too.
    file.write_all(format!("{time} webservicemonitor: {line}\n").as_bytes())
}
