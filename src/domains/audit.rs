//! Who changed what, and when: kept in the database, in the transaction of the change.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Transaction, params};

use super::change::Author;
use super::mapping::Mapping;

/// Older rows are removed.
const KEPT_FOR: Duration = Duration::from_secs(400 * 24 * 3600);
/// So are those beyond this number.
const KEPT_ROWS: i64 = 1_000_000;
/// No transaction removes more of them, so that none lasts.
const PRUNED_AT_ONCE: i64 = 1000;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Put,
    Replace,
    Rename,
    Delete,
    Import,
    CreateToken,
    RevokeToken,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Replace => "replace",
            Self::Rename => "rename",
            Self::Delete => "delete",
            Self::Import => "import",
            Self::CreateToken => "create token",
            Self::RevokeToken => "revoke token",
        }
    }
}

/// One change. Of a token, `domain` is its number.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub author: Author<'a>,
    pub action: Action,
    pub domain: &'a str,
    pub before: Option<Mapping>,
    pub after: Option<Mapping>,
}

/// A row of the log, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub at: i64,
    pub who: String,
    pub project: String,
    pub action: String,
    pub domain: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Writes down a change.
pub(super) fn record(transaction: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<()> {
    // Strings always are JSON.
    let json = |mapping: &Option<Mapping>| mapping.as_ref().and_then(|mapping| serde_json::to_string(mapping).ok());
    let Author { who, project } = entry.author;
    let (before, after) = (json(&entry.before), json(&entry.after));
    let mut insert = transaction.prepare_cached(
        "INSERT INTO audit(at, who, project, action, domain, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![unix_now(), who, project, entry.action.as_str(), entry.domain, before, after])?;
    Ok(())
}

/// The latest `limit` rows of a project, of a domain, or of all; the oldest first.
pub(super) fn read(
    transaction: &Transaction<'_>,
    project: Option<&str>,
    domain: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<Row>> {
    let mut query = transaction.prepare(
        "SELECT at, who, project, action, domain, before, after FROM audit
         WHERE (?1 IS NULL OR project = ?1)
           AND (?2 IS NULL OR domain = ?2 OR json_extract(after, '$.domain') = ?2)
         ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = query.query_map(params![project, domain, limit], |row| {
        let (at, who, project, action) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Row { at, who, project, action, domain: row.get(4)?, before: row.get(5)?, after: row.get(6)? })
    })?;
    let mut rows: Vec<Row> = rows.collect::<rusqlite::Result<_>>()?;
    rows.reverse();
    Ok(rows)
}

/// Removes some of the rows that are too old or too many; to be called again while it answers true.
pub(super) fn prune(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let oldest = unix_now().saturating_sub(i64::try_from(KEPT_FOR.as_secs()).unwrap_or(i64::MAX));
    prune_to(transaction, oldest, KEPT_ROWS)
}

fn prune_to(transaction: &Transaction<'_>, oldest: i64, kept: i64) -> rusqlite::Result<bool> {
    // Numbers rise with time, and none is used twice: the first rows are the oldest.
    let removed = transaction.execute(
        "DELETE FROM audit WHERE id IN (
             SELECT id FROM audit WHERE at < ?1 OR id <= (SELECT max(id) FROM audit) - ?2 ORDER BY id LIMIT ?3)",
        params![oldest, kept, PRUNED_AT_ONCE],
    )?;
    Ok(i64::try_from(removed).is_ok_and(|removed| removed == PRUNED_AT_ONCE))
}

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::database::Database;

    #[test]
    fn rows_that_are_too_old_or_too_many_go_some_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open_or_create(&dir.path().join("domains.db")).unwrap();
        let left = |oldest: i64, kept: i64| {
            database.write(|transaction| {
                transaction.execute_batch(
                    "DELETE FROM audit;
                     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
                     INSERT INTO audit(at, who, project, action, domain) SELECT i, 'w', 'p', 'put', 'd' FROM n;",
                )?;
                let mut rounds = 1;
                while prune_to(transaction, oldest, kept)? {
                    rounds += 1;
                }
                transaction
                    .query_row("SELECT count(*), min(at) FROM audit", [], |row| Ok((row.get(0)?, row.get(1)?, rounds)))
            })
        };
        let left = |oldest, kept| left(oldest, kept).map_err(|error: rusqlite::Error| error.to_string());
        assert_eq!(left(0, 9999), Ok((2500, 1, 1)));
        assert_eq!(left(2401, 9999), Ok((100, 2401, 3)));
        assert_eq!(left(0, 10), Ok((10, 2491, 3)));
    }
}
