//! A job's registrations, in a file of its scratch directory, for portreleaser in the queue's epilog.
//!
//! Grid Engine gives the job and its epilog the same `JOB_ID` and `TMPDIR`, and removes the directory after the epilog. The
//! job's owner can write anything into the file; both programs act for that user only.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use tracing::warn;

use super::active_proxy::{Proxy, parse_active_proxies};
use crate::route::Backend;

/// Largest record, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// Most entries: the epilog contacts all proxies at once.
const MAX_ENTRIES: usize = 64;

/// A proxy, and a URL that may be registered there.
pub type Entry = (Proxy, Backend);

/// The registrations that may exist now.
#[derive(Debug, Default)]
pub struct JobRecord {
    path: Option<PathBuf>,
    entries: Mutex<Vec<Entry>>,
}

/// Why a job's record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a job, or no program that keeps a record has registered.
    #[error("the job has no record of its registrations")]
    None,
    /// The file cannot be read.
    #[error("{error} while reading the record {path:?} of the job's registrations")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A line that is not `PROXY URL`, or another user's file.
    #[error("invalid record {path:?} of the job's registrations, expected PROXY URL on each line")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl JobRecord {
    /// The record of this process's job. Outside a job it has no file.
    pub fn of_job() -> Self {
        Self { path: path_of_job(), entries: Mutex::default() }
    }

    /// Replaces the URLs that may be registered with the proxy.
    pub fn set(&self, proxy: &Proxy, urls: &[Backend]) {
        let mut entries = self.entries.lock();
        let before = entries.clone();
        entries.retain(|(of, _)| of != proxy);
        entries.extend(urls.iter().map(|url| (proxy.clone(), url.clone())));
        if let Some(path) = &self.path
            && *entries != before
            && let Err(error) = write(path, &entries)
        {
            warn!("{error} while writing {path:?}; portreleaser will not know which URL to unregister");
        }
    }

    /// Whether nothing can be registered.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }
}

/// The registrations that the job of this epilog has left behind.
pub fn of_ended_job() -> Result<Vec<Entry>, RecordError> {
    read(&path_of_job().ok_or(RecordError::None)?)
}

fn path_of_job() -> Option<PathBuf> {
    let [job, directory] = ["JOB_ID", "TMPDIR"].map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    let job = job.filter(|job| job.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
    // Tasks of an array job have a directory each, unless the site sets TMPDIR itself.
    let task = env::var("SGE_TASK_ID").unwrap_or_default();
    let task =
        Some(task).filter(|task| task.parse::<u32>().is_ok()).map_or_else(String::new, |task| format!(".{task}"));
    Some(Path::new(&directory?).join(format!("urlproxy-registered-{job}{task}")))
}

fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let text: String = entries.iter().map(|(proxy, url)| format!("{proxy} {url}\n")).collect();
    // A process with the same id may have been killed while it wrote.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, path)).inspect_err(|_| drop(fs::remove_file(&new)))
}

fn read(path: &Path) -> Result<Vec<Entry>, RecordError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => RecordError::None,
        _ => RecordError::Unreadable { path: path.to_owned(), error },
    };
    let malformed = || RecordError::Malformed { path: path.to_owned() };
    // Follows no link, and does not block on a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(|_| malformed())?;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.len() > MAX_LEN {
        return Err(malformed());
    }
    let mut text = String::new();
    file.take(MAX_LEN).read_to_string(&mut text).map_err(unreadable)?;
    parse_record(&text).ok_or_else(malformed)
}

/// Parses `PROXY URL` on each line; `None` for anything else, and for too many.
pub fn parse_record(text: &str) -> Option<Vec<Entry>> {
    let entries: Option<Vec<_>> = text.lines().map(parse_line).collect();
    entries.filter(|entries| entries.len() <= MAX_ENTRIES)
}

fn parse_line(line: &str) -> Option<Entry> {
    let (proxy, url) = line.split_once(' ')?;
    let proxy = parse_active_proxies(proxy.as_bytes()).ok()?.pop()?;
    Some((proxy, url.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn proxy(text: &str) -> Proxy {
        parse_active_proxies(text.as_bytes()).unwrap().pop().unwrap()
    }

    fn url(text: &str) -> Backend {
        text.parse().unwrap()
    }

    #[test]
    fn record_survives_a_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        assert!(matches!(read(&path), Err(RecordError::None)));
        let record = JobRecord { path: Some(path.clone()), entries: Mutex::default() };
        let (a, b) = (proxy("a"), proxy("[fd00::1]:82"));
        let (first, second) = (url("http://10.0.0.1:80"), url("http://[fd00::2]:80"));
        record.set(&a, std::slice::from_ref(&first));
        record.set(&b, &[first.clone(), second.clone()]);
        record.set(&a, std::slice::from_ref(&second));
        assert!(!record.is_empty());
        assert_eq!(read(&path).unwrap(), [(b.clone(), first), (b.clone(), second.clone()), (a.clone(), second)]);
        record.set(&b, &[]);
        record.set(&a, &[]);
        assert!(record.is_empty() && read(&path).unwrap().is_empty(), "no registration is left");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn invalid_records_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        for text in
            ["a", "a http://10.0.0.1:80/path", "a  http://10.0.0.1:80", "\n", "a b http://10.0.0.1:80", "# http://a:1"]
        {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(RecordError::Malformed { .. })), "{text:?}");
        }
        for count in [MAX_ENTRIES + 1, 10_000] {
            fs::write(&path, "a http://10.0.0.1:80\n".repeat(count)).unwrap();
            assert!(matches!(read(&path), Err(RecordError::Malformed { .. })), "{count}");
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read(&path), Err(RecordError::Unreadable { .. })));
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(read(&path), Err(RecordError::Unreadable { .. })));
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(read(&path), Err(RecordError::Malformed { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read(&path), Err(RecordError::Malformed { .. })));
    }
}
