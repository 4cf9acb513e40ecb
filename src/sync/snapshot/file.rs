//! Reading the snapshot's file, and replacing it in one step.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Snapshot, SnapshotError, SnapshotSettings};
use crate::clock;
use crate::table::Table;

/// What a snapshot may have in bytes for each byte of records: text is longer, and JSON may escape every character.
const BYTES_PER_RECORD_BYTE: u64 = 8;
/// What even the snapshot of a small table may have.
const SMALLEST_LIMIT: u64 = 1 << 20;

/// Reads the snapshot, and how long ago its last comparison with the source was; a time to come is now.
pub(crate) fn read(settings: &SnapshotSettings, table: Table<'_>) -> Result<(Snapshot, Duration), SnapshotError> {
    let (file, metadata) = open(settings)?;
    let limit = table.capacity().cells as u64 * 64 * BYTES_PER_RECORD_BYTE + SMALLEST_LIMIT;
    if metadata.len() > limit {
        return Err(SnapshotError::TooLarge { bytes: metadata.len(), limit });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(limit).read_to_end(&mut bytes)?;
    let snapshot = Snapshot::parse(&bytes)?;
    let age = clock::unix_time().saturating_sub(Duration::from_secs(snapshot.synced_at));
    if age > settings.max_age {
        return Err(SnapshotError::TooOld(age, settings.max_age));
    }
    Ok((snapshot, age))
}

/// Opens the file if nobody but its owner, and users that nginx trusts anyway, can have written it or put it there. What is
/// checked is what was opened.
fn open(settings: &SnapshotSettings) -> Result<(File, Metadata), SnapshotError> {
    let (Some(directory), Some(name)) = (settings.path.parent(), settings.path.file_name()) else {
        return Err(SnapshotError::NotAFile);
    };
    let missing =
        |error: Errno| if error == Errno::NOENT { SnapshotError::Missing } else { SnapshotError::Io(error.into()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty()).map_err(missing)?;
    // The master reads what the workers' user may put there: no wait for a FIFO, no link to a device.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(openat(&directory, name, flags, Mode::empty()).map_err(missing)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(SnapshotError::NotAFile);
    }
    let trust = Trust { own: geteuid().as_raw(), others: &settings.owners };
    trust.check(&metadata)?;
    trust.check(&File::from(directory).metadata()?)?;
    Ok((file, metadata))
}

/// Users whose files are believed, beside root.
struct Trust<'a> {
    own: u32,
    others: &'a [u32],
}

impl Trust<'_> {
    /// Whether nobody else can write a file, or put another in its place in a directory. In a sticky one nobody can replace
    /// another's file.
    fn check(&self, metadata: &Metadata) -> Result<(), SnapshotError> {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let (what, expected) = if metadata.is_dir() { ("its directory", "0755") } else { ("it", "0640") };
        let is_sticky = metadata.is_dir() && mode & 0o1000 != 0;
        if owner != 0 && owner != self.own && !self.others.contains(&owner) {
            return Err(SnapshotError::Owner { what, owner });
        }
        if mode & 0o022 != 0 && !is_sticky {
            return Err(SnapshotError::Writable { what, mode, expected });
        }
        Ok(())
    }
}

/// Makes `bytes` the file's content: after a crash it has either these or the former.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let temporary = temporary_path(path);
    let mut file = claim(&temporary)?;
    let written = (|| {
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The name, too, must be on disk.
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    })();
    if written.is_err() {
        // What is half written must not fill a disk that is full already.
        let _ = fs::remove_file(&temporary);
    }
    Ok(written?)
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Opens the temporary file for this process alone: during an upgrade two nginx may keep one snapshot.
fn claim(temporary: &Path) -> Result<File, SnapshotError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags as i32)
        .truncate(false)
        .open(temporary)?;
    if !file.metadata()?.is_file() {
        return Err(SnapshotError::NotAFile);
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => SnapshotError::Busy,
        error => SnapshotError::Io(error.into()),
    })?;
    // Whoever had it before may just have made it the snapshot.
    let is_there = fs::symlink_metadata(temporary)
        .is_ok_and(|there| file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino())));
    if is_there { Ok(file) } else { Err(SnapshotError::Busy) }
}
