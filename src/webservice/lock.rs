//! The lock against two commands of one tool at a time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};
use tokio::time::{Instant, sleep};

use super::console::Console;
use crate::tenant::{FileProblem, TenantFile};

/// The file in the home.
const FILE: &str = ".webservice.lock";
/// The time between two attempts.
const RETRY: Duration = Duration::from_millis(100);
/// The longest wait: that of the longest restart with default options.
const MAX_WAIT: Duration = Duration::from_secs(55);

/// A POSIX record lock, which works on NFS and ends with the process. Closing any descriptor of the file would release it, so the
/// file is opened once.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    /// Whether another command held it first.
    pub has_waited: bool,
}

/// Why the lock is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be opened or created.
    #[error("{error} while opening the lock {path:?}; nothing was changed")]
    NotOpened {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Something else is in the file's place.
    #[error("the lock {0:?} is not a regular file; remove it, then run the command again")]
    NotRegular(PathBuf),
    /// The system refuses to lock it.
    #[error("{error} while locking {path:?}; nothing was changed")]
    NotLocked {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Another command holds it for too long.
    #[error("another webservice command{holder} still holds the lock {path:?} after {MAX_WAIT:?}; nothing was changed")]
    Busy {
        /// The file.
        path: PathBuf,
        /// Its process, if known: ` (process 12)`.
        holder: String,
    },
}

impl Lock {
    /// Takes the tool's lock; waits for another command, and says so.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn take(home: &Path, console: &Console) -> Result<Self, LockError> {
        let path = home.join(FILE);
        let file = open(&path)?;
        let (begin, mut has_waited) = (Instant::now(), false);
        loop {
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file, has_waited }),
                Err(Errno::AGAIN | Errno::ACCESS) => {}
                Err(error) => return Err(LockError::NotLocked { path, error: error.into() }),
            }
            if begin.elapsed() >= MAX_WAIT {
                return Err(LockError::Busy { path, holder: holder(&file) });
            }
            if !has_waited {
                console.say(format!("Waiting for another webservice command{} of this tool", holder(&file)));
                has_waited = true;
            }
            sleep(RETRY).await;
        }
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    let opened = TenantFile::open_or_create(path, OFlags::RDWR, 0o600).map_err(|problem| match problem {
        FileProblem::Unreadable(error) => LockError::NotOpened { path: path.into(), error },
        _ => LockError::NotRegular(path.into()),
    });
    opened.map(TenantFile::into_file)
}

/// The process that holds the lock, in words; empty if it is on another host.
fn holder(file: &File) -> String {
    let found = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok().flatten();
    found.and_then(|lock| lock.pid).map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
