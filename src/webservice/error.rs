//! Why the command fails.

use std::io;

/// Why `webservice` fails; exit status 1.
#[derive(Debug, thiserror::Error)]
pub enum WebserviceError {
    /// Standard output or the like.
    #[error(transparent)]
    Io(#[from] io::Error),
}
