//! The accept file, with which an operator ends a hold: an empty file accepts all held records, names in it accept those alone.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::registry::{routes_key, split_key};

/// A file counts once it has been unchanged for this long: before, it may be half written.
const SETTLED: Duration = Duration::from_millis(500);
/// Limit of the file's size: some thousand names of the greatest length.
const MAX_BYTES: u64 = 1 << 20;
/// Names shown in one log line, and bytes shown of each.
const SHOWN_NAMES: usize = 10;
const SHOWN_BYTES: usize = 80;

/// Watches for changes of the file.
#[derive(Debug)]
pub struct AcceptFile {
    path: PathBuf,
    /// The state without effect: it existed before, or has been taken.
    known: Option<Stamp>,
    /// A new state, and since when it is unchanged.
    seen: Option<(Stamp, Instant)>,
}

/// What the operator accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The withdrawal of all held records.
    All,
    /// The withdrawal of these records alone.
    Only(Names),
}

/// A set of records, by their keys in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeSet<Vec<u8>>);

/// Why an accept file has no effect.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// A link, a directory, a FIFO, a device.
    #[error("not a regular file")]
    NotAFile,
    /// Larger than the limit.
    #[error("file has {0} bytes, expected at most {MAX_BYTES}")]
    TooLarge(u64),
    /// Comments alone; such a file does not count as empty.
    #[error("file has comments but no names, expected one name per line, or an empty file to accept everything")]
    NoNames,
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl AcceptFile {
    /// Watches `path`; its present state has no effect.
    pub fn new(path: &Path) -> Self {
        let path = path.to_owned();
        let known = stamp_of(&path);
        Self { path, known, seen: None }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file has changed, and is now unchanged for long enough to be complete.
    pub fn is_ready(&mut self, now: Instant) -> bool {
        let found = stamp_of(&self.path).filter(|&found| Some(found) != self.known);
        match (found, self.seen) {
            (Some(found), Some((seen, since))) if found == seen => now.saturating_duration_since(since) >= SETTLED,
            (found, _) => {
                self.seen = found.map(|found| (found, now));
                false
            }
        }
    }

    /// Takes what the file accepts, once for each change of it.
    ///
    /// # Errors
    /// The file has no effect; the operator has to touch it again.
    pub fn take(&mut self, now: Instant) -> Option<Result<Accepted, AcceptError>> {
        if !self.is_ready(now) {
            return None;
        }
        self.known = self.seen.take().map(|(stamp, _)| stamp);
        Some(read(&self.path))
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len() })
}

fn read(path: &Path) -> Result<Accepted, AcceptError> {
    // An empty file need not be readable: root may own it.
    if check(&fs::symlink_metadata(path)?)? == 0 {
        return Ok(Accepted::All);
    }
    // Neither follows a link nor blocks on a FIFO that has replaced the file since the check.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags as i32).open(path);
    let file: File = opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => AcceptError::NotAFile,
        _ => error.into(),
    })?;
    check(&file.metadata()?)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(AcceptError::TooLarge(text.len() as u64));
    }
    parse(&text)
}

/// Returns the file's length; an error if it is not a regular file, or too large.
fn check(metadata: &Metadata) -> Result<u64, AcceptError> {
    match metadata.len() {
        _ if !metadata.is_file() => Err(AcceptError::NotAFile),
        bytes if bytes > MAX_BYTES => Err(AcceptError::TooLarge(bytes)),
        bytes => Ok(bytes),
    }
}

/// Parses one Redis key or tool name per line. Lines that begin with `#` are comments.
pub fn parse(text: &[u8]) -> Result<Accepted, AcceptError> {
    if text.trim_ascii().is_empty() {
        return Ok(Accepted::All);
    }
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let names: BTreeSet<Vec<u8>> = lines
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| if split_key(line).is_some() { line.to_vec() } else { routes_key(line) })
        .collect();
    if names.is_empty() { Err(AcceptError::NoNames) } else { Ok(Accepted::Only(Names(names))) }
}

impl Names {
    /// Whether the set has the record with this key.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.0.contains(key)
    }

    /// The names that are not among `keys`.
    pub fn except<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Self {
        let mut rest = self.0.clone();
        keys.into_iter().for_each(|key| _ = rest.remove(key));
        Self(rest)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes the first few names, each cut to a bounded length.
impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, name) in self.0.iter().take(SHOWN_NAMES).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}\"{}\"", name.get(..SHOWN_BYTES).unwrap_or(name).escape_ascii())?;
        }
        match self.0.len().checked_sub(SHOWN_NAMES) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Takes what the file accepts, once it is unchanged for long enough.
    fn taken(file: &mut AcceptFile) -> Option<Result<String, String>> {
        let now = Instant::now();
        assert!(!file.is_ready(now) && file.take(now).is_none(), "it may be half written");
        let taken = file.take(now + SETTLED)?;
        Some(match taken {
            Ok(Accepted::All) => Ok("all".into()),
            Ok(Accepted::Only(names)) => Ok(names.to_string()),
            Err(error) => Err(error.to_string()),
        })
    }

    #[test]
    fn file_counts_once_per_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accept");
        fs::write(&path, "").unwrap();
        let mut file = AcceptFile::new(&path);
        assert_eq!(taken(&mut file), None, "it existed before");
        for seconds in [3, 6] {
            let later = SystemTime::now() + Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
            assert_eq!(taken(&mut file), Some(Ok("all".into())));
            assert_eq!(taken(&mut file), None, "once");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(taken(&mut file), None);
    }

    #[test]
    fn file_is_not_read_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accept");
        let mut file = AcceptFile::new(&path);
        let started = Instant::now();
        // A shell empties the file first.
        fs::write(&path, "").unwrap();
        assert!(!file.is_ready(started));
        fs::write(&path, "a\n").unwrap();
        assert!(!file.is_ready(started + SETTLED), "it has changed again");
        let accepted = file.take(started + SETTLED * 2).unwrap().unwrap();
        assert!(
            matches!(accepted, Accepted::Only(names) if names.contains(b"prefix:a") && !names.contains(b"prefix:b"))
        );
    }

    #[test]
    fn names_are_read_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AcceptFile::new(&dir.path().join("accept"));
        let long = "x".repeat(300);
        let many: String = (0..15).map(|n| format!("t{n:02}\n")).collect();
        for (text, want) in [
            ("", Ok("all")),
            ("\n \r\n", Ok("all")),
            ("hello", Ok("\"prefix:hello\"")),
            (
                "# 3 of them\n\nhello\r\n  redirect:hello\nfrontend:*.a.org \nprefix:b\nb\n",
                Ok("\"frontend:*.a.org\", \"prefix:b\", \"prefix:hello\", \"redirect:hello\""),
            ),
            ("a tool's\n\u{1b}[2J", Ok(r#""prefix:\x1b[2J", "prefix:a tool\'s""#)),
            (&long, Ok(&format!("\"prefix:{}\"", "x".repeat(SHOWN_BYTES - 7)))),
            (
                &many,
                Ok(&*format!(
                    "{} and 5 more",
                    (0..10).map(|n| format!("\"prefix:t{n:02}\"")).collect::<Vec<_>>().join(", ")
                )),
            ),
            (
                "# nothing\n",
                Err(
                    "file has comments but no names, expected one name per line, or an empty file to accept everything",
                ),
            ),
        ] {
            let written = file.path().with_extension("new");
            fs::write(&written, text).unwrap();
            fs::rename(&written, file.path()).unwrap();
            assert_eq!(taken(&mut file), Some(want.map(str::to_owned).map_err(str::to_owned)), "{text:?}");
        }
    }

    #[test]
    fn only_small_regular_files_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accept");
        let accepted = |make: &dyn Fn()| {
            let mut file = AcceptFile::new(&path);
            make();
            let taken = taken(&mut file);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            taken
        };
        let not_a_file = Some(Err("not a regular file".to_owned()));
        fs::write(dir.path().join("target"), "").unwrap();
        assert_eq!(accepted(&|| symlink(dir.path().join("target"), &path).unwrap()), not_a_file);
        assert_eq!(accepted(&|| symlink("/dev/zero", &path).unwrap()), not_a_file);
        assert_eq!(accepted(&|| fs::create_dir(&path).unwrap()), not_a_file);
        let mode = rustix::fs::Mode::RUSR;
        assert_eq!(accepted(&|| rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap()), not_a_file);
        let large = accepted(&|| File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap());
        assert_eq!(large, Some(Err("file has 1048577 bytes, expected at most 1048576".into())));
        let unreadable = accepted(&|| {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        });
        assert_eq!(unreadable, Some(Ok("all".into())));
    }

    #[test]
    fn except_returns_the_names_that_are_not_held() {
        let names = Names([b"prefix:a".to_vec(), b"prefix:b".to_vec()].into());
        assert_eq!(names.except([&b"prefix:a"[..], b"prefix:c"]).to_string(), "\"prefix:b\"");
        assert!(names.except([&b"prefix:a"[..], b"prefix:b"]).is_empty());
    }
}
