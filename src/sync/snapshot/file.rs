//! Reads the snapshot's file, and replaces it atomically.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Snapshot, SnapshotError, SnapshotSettings};
use crate::clock;
use crate::table::Table;

/// Largest snapshot size per byte of records: text is longer, and JSON may escape every character.
const BYTES_PER_RECORD_BYTE: u64 = 8;
/// The size limit of a small table's snapshot.
const SMALLEST_LIMIT: u64 = 1 << 20;
/// The size limit of a snapshot whose table is unknown: 4 GiB, a few million tools.
const LARGEST_LIMIT: u64 = 4 << 30;

/// Reads the snapshot; returns it and its age, which is zero for a time in the future.
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

/// Reads a snapshot of any age and owner, to look at it.
///
/// # Errors
/// The file is missing, unreadable, damaged, or too large.
pub fn read_snapshot_file(path: &Path) -> Result<Snapshot, SnapshotError> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SnapshotError::Missing,
        _ => SnapshotError::Io(error),
    };
    // Does not block on a FIFO.
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags as i32).open(path).map_err(missing)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(SnapshotError::NotAFile);
    }
    if metadata.len() > LARGEST_LIMIT {
        return Err(SnapshotError::TooLarge { bytes: metadata.len(), limit: LARGEST_LIMIT });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_LIMIT).read_to_end(&mut bytes)?;
    Snapshot::parse(&bytes)
}

/// Opens the file if only trusted users can have written or placed it. The checks use the opened descriptors.
fn open(settings: &SnapshotSettings) -> Result<(File, Metadata), SnapshotError> {
    let (Some(directory), Some(name)) = (settings.path.parent(), settings.path.file_name()) else {
        return Err(SnapshotError::NotAFile);
    };
    let missing =
        |error: Errno| if error == Errno::NOENT { SnapshotError::Missing } else { SnapshotError::Io(error.into()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty()).map_err(missing)?;
    // The master reads a path that the workers' user controls: never block on a FIFO, never follow a link.
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

/// Trusted owners, besides root.
struct Trust<'a> {
    own: u32,
    others: &'a [u32],
}

impl Trust<'_> {
    /// Checks that no untrusted user can write the file, or replace it in its directory. A sticky directory protects files
    /// from other users.
    fn check(&self, metadata: &Metadata) -> Result<(), SnapshotError> {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let (what, expected) = if metadata.is_dir() { ("its directory", "0755") } else { ("the file", "0640") };
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

/// Replaces the file's content atomically: after a crash the file has either the old or the new bytes.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let temporary = temporary_path(path);
    let mut file = open_exclusive(&temporary)?;
    let written = (|| {
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // Sync the directory as well, for the new name.
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    })();
    if written.is_err() {
        // Do not leave a partial file on a full disk.
        let _ = fs::remove_file(&temporary);
    }
    Ok(written?)
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Opens and locks the temporary file: during an upgrade two nginx may write the same snapshot.
fn open_exclusive(temporary: &Path) -> Result<File, SnapshotError> {
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
    // The previous holder of the lock may just have renamed the file.
    let is_there = fs::symlink_metadata(temporary)
        .is_ok_and(|there| file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino())));
    if is_there { Ok(file) } else { Err(SnapshotError::Busy) }
}
