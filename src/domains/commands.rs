//! The commands of the command line; they work while the server runs.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::audit;
use super::backup::back_up;
use super::command_error::CommandError;
use super::database::Database;
use super::import::import;
use super::operator;
use super::options::{Command, DomainCommand, Options, TokenCommand};
use super::token;
use crate::daemon::calling_user;

impl Options {
    /// Runs a command, and prints its result to `out`.
    pub(super) fn run_command(&mut self, command: Command, out: &mut impl Write) -> Result<(), CommandError> {
        let policy = self.take_policy().map(|(policy, _)| policy);
        let path = &self.database;
        let text = match command {
            Command::Token(TokenCommand::Create { project }) => create_token(path, &project),
            Command::Token(TokenCommand::List) => list_tokens(path),
            Command::Token(TokenCommand::Revoke { id }) => revoke_token(path, id),
            Command::Backup { file } => Ok(back_up(&Database::open(path)?, &file)?),
            Command::Audit { project, domain, limit, json } => {
                print_audit(path, project.as_deref(), domain.as_deref(), limit, json)
            }
            Command::Domain(command @ DomainCommand::Map { .. }) => {
                operator::execute(&Database::open_or_create(path)?, &policy?, command)
            }
            Command::Domain(command) => operator::execute(&Database::open(path)?, &policy?, command),
            Command::Check { json } => operator::check(&Database::open(path)?, &policy?, json),
            Command::Import { old } => Ok(import(&Database::open_or_create(path)?, &policy?, &calling_user(), &old)?),
        };
        out.write_all(text?.as_bytes()).and_then(|()| out.flush()).map_err(CommandError::Print)
    }
}

fn create_token(path: &Path, project: &str) -> Result<String, CommandError> {
    let database = Database::open_or_create(path)?;
    let secret = token::generate().ok_or(CommandError::NoRandomness)?;
    let created = database.write(|transaction| token::create(transaction, &calling_user(), project, &secret));
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
    let revoked = database.write(|transaction| token::revoke(transaction, &calling_user(), id));
    if revoked.map_err(|error| database.failed(error))? {
        Ok(String::new())
    } else {
        Err(CommandError::NoSuchToken(id))
    }
}

fn print_audit(
    path: &Path,
    project: Option<&str>,
    domain: Option<&str>,
    limit: u32,
    as_json: bool,
) -> Result<String, CommandError> {
    let rows = Database::open(path)?.read(|transaction| audit::read(transaction, project, domain, limit))?;
    if as_json {
        // Text of other programs that is not JSON is printed as a string.
        let mapping = |text: &Option<String>| {
            text.as_ref().map(|text| serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!(text)))
        };
        let entry = |row: &audit::Row| {
            json!({
                "at": at(row.at), "who": row.who, "project": row.project, "action": row.action, "domain": row.domain,
                "before": mapping(&row.before), "after": mapping(&row.after),
            })
        };
        return Ok(operator::json_text(&rows.iter().map(entry).collect::<Vec<_>>()));
    }
    let mut text = String::new();
    for row in rows {
        let (before, after) = (row.before.as_deref().unwrap_or("-"), row.after.as_deref().unwrap_or("-"));
        let audit::Row { who, project, action, domain, .. } = &row;
        let _ = writeln!(text, "{}\t{who}\t{project}\t{action}\t{domain}\t{before}\t{after}", at(row.at));
    }
    Ok(text)
}

/// Formats seconds since 1970 as RFC 3339.
fn at(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}
