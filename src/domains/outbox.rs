//! The outbox: changed domains that are not replicated to Redis yet. A row names the domain; its current mapping is replicated.

use rusqlite::Transaction;

use super::mapping::{Mapping, backends_of};

/// Mappings to write to Redis, and the outbox number of the last one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub seq: i64,
    /// Without backends, the domain is to be deleted.
    pub mappings: Vec<Mapping>,
}

/// Adds a domain, or moves it to the end; returns its outbox number.
pub(super) fn add(transaction: &Transaction<'_>, domain: &str) -> rusqlite::Result<i64> {
    transaction.execute("INSERT OR REPLACE INTO outbox(domain) VALUES (?)", [domain])?;
    Ok(transaction.last_insert_rowid())
}

/// The oldest `limit` domains with their current mappings.
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

/// Removes the domains of a batch. Domains that changed again meanwhile have a greater number, and stay.
pub(super) fn remove(transaction: &Transaction<'_>, seq: i64) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM outbox WHERE seq <= ?", [seq])?;
    Ok(())
}

/// The number of domains in the outbox.
pub(super) fn len(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    transaction.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
}
