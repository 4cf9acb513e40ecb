//! A web service's command, ready to start.

use std::ffi::OsString;
use std::path::PathBuf;

use super::home_file::HomeFileError;

/// What to run, where, and with which configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedCommand {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Where it runs; the home if `None`.
    pub directory: Option<PathBuf>,
    /// The file that must exist, and its content.
    pub configuration: Option<(PathBuf, Vec<u8>)>,
}

/// Why a command cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A tool's own part of the configuration is unusable.
    #[error("{0}; it belongs to the server's configuration, so repair or remove it")]
    File(#[from] HomeFileError),
    /// A path cannot be written in the configuration.
    #[error("the path {0:?} has a backslash or a control character, which lighttpd's configuration cannot express")]
    Path(PathBuf),
}
