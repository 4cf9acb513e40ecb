//! Domains that Redis has yet to be told of. A row says that a domain has changed, not how: what counts is its present state.

use rusqlite::Transaction;

use super::mapping::{Mapping, backends_of};

/// What is to be written to Redis, and up to where of the outbox that is.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub seq: i64,
    /// A domain without backends is to be deleted.
    pub mappings: Vec<Mapping>,
}

/// Adds a domain, or moves it to the end. Redis has it when it has everything up to the number returned.
pub(super) fn add(transaction: &Transaction<'_>, domain: &str) -> rusqlite::Result<i64> {
    transaction.execute("INSERT OR REPLACE INTO outbox(domain) VALUES (?)", [domain])?;
    Ok(transaction.last_insert_rowid())
}

/// The oldest `limit` of them with their present state; without any, an empty batch.
pub(super) fn read(transaction: &Transaction<'_>, limit: usize) -> rusqlite::Result<Batch> {
    let mut query = transaction.prepare_cached("SELECT seq, domain FROM outbox ORDER BY seq LIMIT ?")?;
    let mut batch = Batch::default();
    let mut rows = query.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        batch.seq = row.get(0)?;
        let domain: String = row.get(1)?;
        let backends = backends_of(transaction, &domain)?;
        batch.mappings.push(Mapping { domain, backends });
    }
    Ok(batch)
}

/// Removes those that a batch had. One that was added again meanwhile has a later number, and stays.
pub(super) fn remove(transaction: &Transaction<'_>, seq: i64) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM outbox WHERE seq <= ?", [seq])?;
    Ok(())
}

/// How many there are.
pub(super) fn len(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    transaction.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
}
