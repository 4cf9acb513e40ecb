//! Errors of commands.

use std::io;

use super::api_error::ApiError;
use super::backup::BackupError;
use super::database::{Database, DatabaseError};
use super::import::ImportError;
use super::settings::SettingsError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("no random bytes for a token")]
    NoRandomness,
    /// The command succeeded, but its result could not be printed.
    #[error("{0} while printing the result")]
    Print(io::Error),
    #[error("no active token {0}, expected an ID from `token list`")]
    NoSuchToken(i64),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("no domain {0:?}, expected one of `domain list`")]
    NoSuchDomain(String),
    #[error("domain {domain:?} was not changed: {reason}")]
    Refused { domain: String, reason: String },
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl CommandError {
    /// Turns an error of a change into one of a command.
    pub(super) fn of(database: &Database, error: ApiError, domain: &str) -> Self {
        match error {
            ApiError::NoSuchDomain => Self::NoSuchDomain(domain.to_owned()),
            ApiError::Database(error) => Self::Database(error),
            ApiError::Sqlite(error) => Self::Database(database.failed(error)),
            error => Self::Refused { domain: domain.to_owned(), reason: error.detail() },
        }
    }
}
