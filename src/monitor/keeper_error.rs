//! Why the memory is not there, or not kept.

use std::io;
use std::path::PathBuf;

use crate::daemon::StoreError;

/// Why the memory is not there, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The file system's.
    #[error("{error} while {doing} {path:?}")]
    File {
        /// Reading, or writing.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Redis does not answer, or refuses.
    #[error(transparent)]
    Redis(#[from] StoreError),
    /// Another monitor restarts tools by the memory in Redis.
    #[error("another webservicemonitor runs, {holder}, and has the history of restarts in Redis")]
    Held {
        /// `host:pid:number`.
        holder: String,
    },
    /// Nobody has the lock any more, as after a flush.
    #[error("the lock of the history of restarts in Redis is lost")]
    LockLost,
}
