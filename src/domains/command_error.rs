//! Why a command was not done.

use std::io;

use super::api_error::ApiError;
use super::backup::BackupError;
use super::database::{Database, DatabaseError};
use super::import::ImportError;
use super::settings::SettingsError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A wrong command line.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No randomness.
    #[error("the system has no random bytes for a token")]
    NoRandomness,
    /// It was done, but what came of it could not be printed.
    #[error("{0} while printing what was done")]
    Print(io::Error),
    /// No such token.
    #[error("no token {0} that is not revoked, expected a number of `token list`")]
    NoSuchToken(i64),
    /// No copy.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nobody has it.
    #[error("no domain {0:?}, expected one of `domain list`")]
    NoSuchDomain(String),
    /// The rules, or the database, are against it.
    #[error("domain {domain:?} was not changed: {why}")]
    Refused {
        /// Which one.
        domain: String,
        /// Why.
        why: String,
    },
    /// Nothing was imported.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl CommandError {
    /// Why a domain was not changed, for who gives a command.
    pub(super) fn of(database: &Database, error: ApiError, domain: &str) -> Self {
        match error {
            ApiError::NoSuchDomain => Self::NoSuchDomain(domain.to_owned()),
            ApiError::Database(error) => Self::Database(error),
            ApiError::Sqlite(error) => Self::Database(database.failed(error)),
            error => Self::Refused { domain: domain.to_owned(), why: error.detail() },
        }
    }
}
