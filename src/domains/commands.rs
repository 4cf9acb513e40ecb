//! What the command line does instead of serving; the server may run meanwhile.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;

use super::audit;
use super::backup::{BackupError, back_up};
use super::database::{Database, DatabaseError};
use super::import::{ImportError, import};
use super::options::{Command, Options, TokenCommand};
use super::settings::SettingsError;
use super::token;

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
    /// Nothing was imported.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl Options {
    /// Does what the command line says, and prints to `out` what came of it.
    ///
    /// # Errors
    /// It was not done, or `out` does not take it.
    pub fn execute(self, command: Command, out: &mut impl Write) -> Result<(), CommandError> {
        let path = &self.database;
        let text = match command {
            Command::Token(TokenCommand::Create { project }) => create_token(path, &project),
            Command::Token(TokenCommand::List) => list_tokens(path),
            Command::Token(TokenCommand::Revoke { id }) => revoke_token(path, id),
            Command::Backup { file } => Ok(back_up(&Database::open(path)?, &file)?),
            Command::Audit { project, domain, limit } => {
                print_audit(path, project.as_deref(), domain.as_deref(), limit)
            }
            Command::Import { old } => {
                let policy = self.policy.into_policy()?;
                Ok(import(&Database::open_or_create(path)?, &policy, &old)?)
            }
        };
        out.write_all(text?.as_bytes()).and_then(|()| out.flush()).map_err(CommandError::Print)
    }
}

fn create_token(path: &Path, project: &str) -> Result<String, CommandError> {
    let database = Database::open_or_create(path)?;
    let secret = token::generate().ok_or(CommandError::NoRandomness)?;
    let created = database.write(|transaction| token::create(transaction, project, &secret));
    created.map_err(|error| database.failed(error))?;
    Ok(secret + "\n")
}

fn list_tokens(path: &Path) -> Result<String, CommandError> {
    let mut text = String::from("ID\tPROJECT\tCREATED\tREVOKED\n");
    for token in Database::open(path)?.read(token::list)? {
        let (created, revoked) = (at(token.created), token.revoked.map_or_else(|| "-".into(), at));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{}\t{created}\t{revoked}", token.id, token.project);
    }
    Ok(text)
}

fn revoke_token(path: &Path, id: i64) -> Result<String, CommandError> {
    let database = Database::open(path)?;
    let revoked = database.write(|transaction| token::revoke(transaction, id));
    if revoked.map_err(|error| database.failed(error))? {
        Ok(String::new())
    } else {
        Err(CommandError::NoSuchToken(id))
    }
}

fn print_audit(path: &Path, project: Option<&str>, domain: Option<&str>, limit: u32) -> Result<String, CommandError> {
    let mut text = String::new();
    for row in Database::open(path)?.read(|transaction| audit::read(transaction, project, domain, limit))? {
        let (before, after) = (row.before.as_deref().unwrap_or("-"), row.after.as_deref().unwrap_or("-"));
        let audit::Row { who, project, action, domain, .. } = &row;
        let _ = writeln!(text, "{}\t{who}\t{project}\t{action}\t{domain}\t{before}\t{after}", at(row.at));
    }
    Ok(text)
}

/// RFC 3339.
fn at(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}
