//! How a command ends: its exit status, and errors.

use std::io;
use std::process::ExitCode;

use super::admin_client::AdminError;
use crate::daemon::StoreError;

/// Exit status for a negative answer: not found, different, something to report.
const NEGATIVE: u8 = 1;
/// Exit status when the question could not be answered.
const FAILED: u8 = 2;

/// The answer of a command that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, or all is well.
    Positive,
    /// Not found, different, or findings to read.
    Negative,
}

impl Answer {
    /// Positive if the condition holds.
    pub fn positive_if(condition: bool) -> Self {
        if condition { Self::Positive } else { Self::Negative }
    }
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Positive => Self::SUCCESS,
            Answer::Negative => Self::from(NEGATIVE),
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// An invalid argument, or settings file.
    #[error("{0}")]
    Usage(String),
    /// The admin API did not answer.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Redis did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The same, with the server's URL without its password.
    #[error("{error} at {url} (--redis)")]
    StoreAt {
        /// Why.
        error: StoreError,
        /// The server.
        url: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// Standard output cannot be written.
    #[error("{0} while writing to standard output")]
    Output(#[from] io::Error),
}

impl CtlError {
    /// An invalid argument.
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// A failure.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Names the server in an error of Redis.
    pub fn at(self, url: &str) -> Self {
        match self {
            Self::Store(error) => Self::StoreAt { error, url: url.to_owned() },
            error => error,
        }
    }

    /// Whether the reader of standard output has left, as `head` does: no reason to complain.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status, except for usage errors.
    pub fn exit_code(&self) -> ExitCode {
        if self.is_closed_pipe() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
    }
}
