//! Copies the database atomically and consistently, while others read and write it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::database::{Database, DatabaseError};

/// Pages copied in one step, 4 KiB each.
const PAGES_PER_STEP: i32 = 1000;

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{error} while writing backup {path:?}")]
    File { path: PathBuf, error: io::Error },
    #[error("backup {0:?} is the database itself or one of its auxiliary files, expected another file")]
    Itself(PathBuf),
    #[error("{error} while copying to {path:?}")]
    Sqlite { path: PathBuf, error: rusqlite::Error },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Copies the database to `file`, and returns the text to print. The copy is complete or does not exist.
pub(super) fn back_up(database: &Database, file: &Path) -> Result<String, BackupError> {
    if is_part_of(database.path(), file) {
        return Err(BackupError::Itself(file.to_owned()));
    }
    let wrong = |error| BackupError::File { path: file.to_owned(), error };
    let mut temporary = OsString::from(file);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // A killed process with the same ID may have left this file.
    let _ = fs::remove_file(&temporary);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(wrong)?;
    let copied = copy(database, &temporary, file).and_then(|pages| {
        let renamed =
            File::open(&temporary).and_then(|copy| copy.sync_all()).and_then(|()| fs::rename(&temporary, file));
        renamed.and_then(|()| sync_directory_of(file)).map_err(wrong)?;
        Ok(format!("{pages} pages copied to {}\n", file.display()))
    });
    if copied.is_err() {
        // Removes only the file created above.
        let _ = fs::remove_file(&temporary);
    }
    copied
}

/// Whether `file` is the database or one of its auxiliary files, also by way of links.
fn is_part_of(database: &Path, file: &Path) -> bool {
    ["", "-wal", "-shm", "-journal", ".lock"].iter().any(|suffix| {
        let mut part = OsString::from(database);
        part.push(suffix);
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        Path::new(&part) == file
            || fs::metadata(&part).is_ok_and(|part| fs::metadata(file).is_ok_and(|file| same(part, file)))
    })
}

fn copy(database: &Database, temporary: &Path, file: &Path) -> Result<i32, BackupError> {
    let failed = |error| BackupError::Sqlite { path: file.to_owned(), error };
    let source = database.open_reader()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(temporary, flags).map_err(failed)?;
    // This read fixes the state to copy. Without it, each change by another connection restarts the backup.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    let backup = Backup::new(&source, &mut copy).map_err(failed)?;
    while backup.step(PAGES_PER_STEP).map_err(failed)? == StepResult::More {
        let progress = backup.progress();
        let (total, left) = (progress.pagecount, progress.remaining);
        // Progress is optional: errors are ignored.
        let _ = writeln!(io::stderr(), "{} of {total} pages copied", total - left);
    }
    Ok(backup.progress().pagecount)
}

fn sync_directory_of(file: &Path) -> io::Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
