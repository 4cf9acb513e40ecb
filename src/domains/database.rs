//! The SQLite database: opens, checks and migrates it; one writer, any number of readers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi};
use rustix::fs::{FlockOperation, flock};

use super::schema::{APPLICATION_ID, VERSION, migrate};

/// Time to wait for a write of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to wait for other writes of this process, each of which may wait for another process.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle reader connections kept open.
const MAX_IDLE_READERS: usize = 8;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("{error} while using database {path:?}")]
    Sqlite { path: PathBuf, error: rusqlite::Error },
    #[error("{error} while opening database {path:?}")]
    File { path: PathBuf, error: io::Error },
    /// Another program's database.
    #[error(
        "{path:?} is not a database of invisible-unicorn (application id {found}, expected {APPLICATION_ID}); to take over the old API's data.db, run `invisible-unicorn --database NEW import {}`", path.display()
    )]
    NotOurs { path: PathBuf, found: i32 },
    #[error(
        "database {path:?} has version {found}, expected at most {VERSION}: it was written by a newer invisible-unicorn"
    )]
    TooNew { path: PathBuf, found: i32 },
    #[error("another invisible-unicorn serves database {0:?}")]
    AlreadyServed(PathBuf),
    #[error("operation on database {0:?} aborted")]
    Aborted(PathBuf),
}

/// An open database.
#[derive(Clone, Debug)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens a database and migrates it to the current version; creates it with mode 0600 if it does not exist.
    ///
    /// # Errors
    /// The file cannot be opened or created, or is not a database of this or an earlier version.
    pub fn open_or_create(path: &Path) -> Result<Self, DatabaseError> {
        let wrong = |error| DatabaseError::File { path: path.to_owned(), error };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(wrong(error)),
            _ => Self::open(path),
        }
    }

    /// Like [`open_or_create`](Self::open_or_create), but the database must exist.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a database of this or an earlier version.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        File::open(path).map_err(|error| DatabaseError::File { path: path.to_owned(), error })?;
        let writer = open_writer(path)?;
        Ok(Self(Arc::new(Inner { path: path.to_owned(), writer: Mutex::new(writer), readers: Mutex::default() })))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Locks the database for this server until the result is dropped.
    ///
    /// # Errors
    /// Another server holds the lock, or the lock file cannot be opened.
    pub fn lock(&self) -> Result<File, DatabaseError> {
        let wrong = |error| DatabaseError::File { path: self.0.path.clone(), error };
        // The canonical path, so that all links to the file share one lock.
        let mut path = std::fs::canonicalize(&self.0.path).map_err(wrong)?.into_os_string();
        path.push(".lock");
        let wrong = |error| DatabaseError::File { path: path.clone().into(), error };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(wrong)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DatabaseError::AlreadyServed(self.0.path.clone())),
            Err(error) => Err(wrong(error.into())),
        }
    }

    /// Reads a consistent state of the database.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        self.read_with(work).map_err(|error| self.failed(error))
    }

    fn read_with<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let kept = self.0.readers.lock().pop();
        let mut reader = match kept {
            Some(reader) => reader,
            None => open_reader(&self.0.path)?,
        };
        let outcome = work(&reader.transaction()?)?;
        let mut readers = self.0.readers.lock();
        if readers.len() < MAX_IDLE_READERS {
            readers.push(reader);
        }
        Ok(outcome)
    }

    /// Executes `work` in one transaction, which is on the disk when this returns. After any error, nothing is changed.
    ///
    /// # Errors
    /// Those of `work`, and SQLite's; [`rusqlite::ErrorCode::DatabaseBusy`] if other writes take too long.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // While another process writes, earlier writes of this process wait for it one after the other.
        let busy = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None);
        let mut writer = self.0.writer.try_lock_for(QUEUE_TIMEOUT).ok_or_else(busy)?;
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = work(&transaction)?;
        transaction.commit()?;
        Ok(outcome)
    }

    /// Opens a separate connection for long reads.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open_reader(&self) -> Result<Connection, DatabaseError> {
        open_reader(&self.0.path).map_err(|error| self.failed(error))
    }

    /// Adds the file's path to SQLite's error.
    pub fn failed(&self, error: rusqlite::Error) -> DatabaseError {
        DatabaseError::Sqlite { path: self.0.path.clone(), error }
    }

    /// Runs `work` on a thread that may block.
    ///
    /// # Errors
    /// Those of `work`; [`DatabaseError::Aborted`].
    pub async fn blocking<T: Send + 'static, E: From<DatabaseError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let database = self.clone();
        let aborted = || DatabaseError::Aborted(self.0.path.clone()).into();
        tokio::task::spawn_blocking(move || work(&database)).await.unwrap_or_else(|_| Err(aborted()))
    }
}

fn open_writer(path: &Path) -> Result<Connection, DatabaseError> {
    let sqlite = |error| DatabaseError::Sqlite { path: path.to_owned(), error };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    check(&connection, path)?;
    prepare(&mut connection).map_err(sqlite)?;
    Ok(connection)
}

/// Only reads: another program's database stays unchanged.
fn check(connection: &Connection, path: &Path) -> Result<(), DatabaseError> {
    let number = |pragma: &str| {
        let read = connection.query_row(pragma, [], |row| row.get::<_, i32>(0));
        read.map_err(|error| DatabaseError::Sqlite { path: path.to_owned(), error })
    };
    let found = number("PRAGMA application_id")?;
    let is_empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    if found != APPLICATION_ID && !(is_empty && found == 0) {
        return Err(DatabaseError::NotOurs { path: path.to_owned(), found });
    }
    match number("PRAGMA user_version")? {
        found if found > VERSION => Err(DatabaseError::TooNew { path: path.to_owned(), found }),
        _ => Ok(()),
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(connection)
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    // Not read-only: the last connection to close a database in WAL mode cleans up.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}
