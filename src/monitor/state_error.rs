//! Errors of the stored restart history.

use std::io;
use std::path::PathBuf;

use crate::daemon::StoreError;

/// Why the restart history cannot be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is unavailable.
    #[error("{error} while {doing} {path:?}")]
    File {
        /// `reading`, `writing`, `locking` or `moving aside`.
        doing: &'static str,
        /// The state file or its lock file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Redis is unavailable or refuses the request.
    #[error(transparent)]
    Redis(#[from] StoreError),
    /// Another monitor holds the lock in Redis.
    #[error("another webservicemonitor runs: {holder} holds the lock in Redis")]
    Held {
        /// The holder, `host:pid:number`.
        holder: String,
    },
    /// The lock in Redis is gone, as after a flush.
    #[error("the lock in Redis is lost")]
    LockLost,
}
