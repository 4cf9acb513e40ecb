//! Bearer tokens of projects: 256 random bits; the database stores only their SHA-256.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::{OptionalExtension, Transaction, params};

use super::api_error::ApiError;
use super::audit::{Action, Author, Entry, record, unix_now};
use super::change::add_project;
use super::mapping::find_project;

/// Longer tokens are refused unread.
const MAX_TOKEN_LEN: usize = 256;
/// Identifies tokens for people and secret scanners.
const PREFIX: &str = "urlproxy_";

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenRow {
    pub id: i64,
    pub project: String,
    pub created: i64,
    pub revoked: Option<i64>,
}

/// Stores a token for a project, created if necessary; returns the token's ID.
pub(super) fn create(transaction: &Transaction<'_>, who: &str, project: &str, secret: &str) -> rusqlite::Result<i64> {
    let id = match find_project(transaction, project)? {
        Some(id) => id,
        None => add_project(transaction, project)?,
    };
    transaction
        .execute("INSERT INTO token(hash, project, created) VALUES (?, ?, ?)", params![hash(secret), id, unix_now()])?;
    let token = transaction.last_insert_rowid();
    record_change(transaction, who, project, Action::CreateToken, token)?;
    Ok(token)
}

/// Generates a token; `None` if the system has no random bytes.
pub(super) fn generate() -> Option<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(PREFIX.to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

/// All tokens, revoked ones included.
pub(super) fn list(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<TokenRow>> {
    let mut query = transaction.prepare(
        "SELECT token.id, project.name, token.created, token.revoked FROM token
         JOIN project ON project.id = token.project ORDER BY token.id",
    )?;
    let row = |row: &rusqlite::Row<'_>| {
        Ok(TokenRow { id: row.get(0)?, project: row.get(1)?, created: row.get(2)?, revoked: row.get(3)? })
    };
    query.query_map([], row)?.collect()
}

/// Revokes a token; false if it does not exist or is revoked already.
pub(super) fn revoke(transaction: &Transaction<'_>, who: &str, id: i64) -> rusqlite::Result<bool> {
    let mut revoke = transaction.prepare(
        "UPDATE token SET revoked = ? WHERE id = ? AND revoked IS NULL
         RETURNING (SELECT name FROM project WHERE project.id = token.project)",
    )?;
    let project: Option<String> = revoke.query_row(params![unix_now(), id], |row| row.get(0)).optional()?;
    match &project {
        Some(project) => record_change(transaction, who, project, Action::RevokeToken, id).map(|()| true),
        None => Ok(false),
    }
}

/// Writes an audit row; any user who can write the database may create and revoke tokens.
fn record_change(
    transaction: &Transaction<'_>,
    who: &str,
    project: &str,
    action: Action,
    id: i64,
) -> rusqlite::Result<()> {
    let (author, domain) = (Author { who, project, is_operator: true }, format!("token {id}"));
    record(transaction, &Entry { author, action, domain: &domain, before: None, after: None })
}

/// Checks whether this token may read and change the project; returns the token's ID, or `None` if the project needs no token.
/// A project that ever had a token needs one, even if all of its tokens are revoked.
///
/// # Errors
/// The token is missing, unknown, revoked, or belongs to another project.
pub(super) fn authorize(
    transaction: &Transaction<'_>,
    project: &str,
    token: Option<&str>,
    always: bool,
) -> Result<Option<i64>, ApiError> {
    let mut query = transaction.prepare_cached(
        "SELECT 1 FROM token JOIN project ON project.id = token.project WHERE project.name = ? LIMIT 1",
    )?;
    if !always && !query.exists([project])? {
        return Ok(None);
    }
    let token = token.filter(|token| token.len() <= MAX_TOKEN_LEN).ok_or(ApiError::Unauthorized)?;
    let mut query = transaction.prepare_cached(
        "SELECT token.id, project.name FROM token JOIN project ON project.id = token.project
         WHERE token.hash = ? AND token.revoked IS NULL",
    )?;
    let found = query.query_row([hash(token)], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).optional()?;
    match found {
        None => Err(ApiError::Unauthorized),
        Some((_, owner)) if owner != project => Err(ApiError::Forbidden),
        Some((id, _)) => Ok(Some(id)),
    }
}

fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}
