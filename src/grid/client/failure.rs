//! Errors that end a program.

use std::fmt::Display;
use std::io;

use super::status::EX_OSERR;

/// An error for the log, and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// The message.
    pub error: String,
    /// One of sysexits.h, or as a shell sets it.
    pub status: u8,
}

/// An error with an exit status.
pub trait HasExitStatus: Display {
    /// One of sysexits.h, or as a shell sets it.
    fn status(&self) -> u8;
}

impl Failure {
    /// An unexpected error of the system.
    pub fn system(error: io::Error, doing: &str) -> Self {
        Self { error: format!("{error} while {doing}"), status: EX_OSERR }
    }
}

impl<E: HasExitStatus> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.to_string(), status: error.status() }
    }
}
