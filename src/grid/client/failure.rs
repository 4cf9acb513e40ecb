//! Why a program ends before its work is done.

use std::fmt::Display;
use std::io;

use super::status::EX_OSERR;

/// An error, for the log, and the exit status for it.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: String,
    /// One of sysexits.h, or a shell's.
    pub status: u8,
}

/// An error that says what a program exits with for it.
pub trait HasExitStatus: Display {
    /// The exit status.
    fn status(&self) -> u8;
}

impl Failure {
    /// The system refuses what it never should.
    pub fn system(error: io::Error, doing: &str) -> Self {
        Self { error: format!("{error} while {doing}"), status: EX_OSERR }
    }
}

impl<E: HasExitStatus> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.to_string(), status: error.status() }
    }
}
