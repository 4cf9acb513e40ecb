//! Mappings in the database: a domain of a project, and its backends.

use rusqlite::{OptionalExtension, Transaction, params};
use serde::Serialize;

use crate::registry::frontend_of;

/// A domain and its backends, in the order of their addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// In canonical form, once checked.
    pub domain: String,
    /// `scheme://host:port` each, once checked.
    pub backends: Vec<String>,
}

/// A row of the table `domain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DomainRow {
    pub id: i64,
    pub project: i64,
}

/// The ID of a project.
pub(super) fn find_project(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<i64>> {
    let mut query = transaction.prepare_cached("SELECT id FROM project WHERE name = ?")?;
    query.query_row([name], |row| row.get(0)).optional()
}

/// Finds a domain of any project.
pub(super) fn find_domain(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<DomainRow>> {
    let mut query = transaction.prepare_cached("SELECT id, project FROM domain WHERE name = ?")?;
    query.query_row([name], |row| Ok(DomainRow { id: row.get(0)?, project: row.get(1)? })).optional()
}

/// A domain's backends; empty if it is not mapped.
pub(super) fn backends_of(transaction: &Transaction<'_>, domain: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = transaction.prepare_cached(
        "SELECT backend.url FROM backend JOIN domain ON domain.id = backend.domain WHERE domain.name = ? ORDER BY backend.id",
    )?;
    query.query_map([domain], |row| row.get(0))?.collect()
}

/// All mappings of a project, in the order of their addition.
pub(super) fn mappings_of(transaction: &Transaction<'_>, project: i64) -> rusqlite::Result<Vec<Mapping>> {
    let mut query = transaction.prepare_cached(
        "SELECT domain.name, backend.url FROM domain JOIN backend ON backend.domain = domain.id
         WHERE domain.project = ? ORDER BY domain.id, backend.id",
    )?;
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut rows = query.query(params![project])?;
    while let Some(row) = rows.next()? {
        let (domain, url) = (row.get_ref(0)?.as_str()?, row.get(1)?);
        match mappings.last_mut() {
            Some(last) if last.domain == domain => last.backends.push(url),
            _ => mappings.push(Mapping { domain: domain.to_owned(), backends: vec![url] }),
        }
    }
    Ok(mappings)
}

/// A page of the mappings of all projects.
#[derive(Debug)]
pub(super) struct MappingPage {
    /// Ordered by ID.
    pub mappings: Vec<Mapping>,
    /// The last mapping's ID; `None` for an empty page.
    pub last: Option<i64>,
}

/// The first `limit` mappings with an ID greater than `id`.
pub(super) fn page_after(transaction: &Transaction<'_>, id: i64, limit: usize) -> rusqlite::Result<MappingPage> {
    let mut query = transaction.prepare_cached(
        "SELECT some.id, some.name, backend.url FROM (SELECT id, name FROM domain WHERE id > ? ORDER BY id LIMIT ?) AS some
         JOIN backend ON backend.domain = some.id ORDER BY some.id, backend.id",
    )?;
    let mut page = MappingPage { mappings: Vec::new(), last: None };
    let mut rows = query.query(params![id, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let (id, url) = (row.get(0)?, row.get(2)?);
        match page.mappings.last_mut() {
            Some(mapping) if page.last == Some(id) => mapping.backends.push(url),
            _ => page.mappings.push(Mapping { domain: row.get(1)?, backends: vec![url] }),
        }
        page.last = Some(id);
    }
    Ok(page)
}

/// Those of the Redis keys whose domain is not mapped.
pub(super) fn unmapped_of(transaction: &Transaction<'_>, keys: Vec<Vec<u8>>) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut unmapped = Vec::new();
    for key in keys {
        let row = frontend_of(&key).map(|domain| find_domain(transaction, domain)).transpose()?;
        if row.flatten().is_none() {
            unmapped.push(key);
        }
    }
    Ok(unmapped)
}

/// Whether the database has ever had a domain.
fn ever_held(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let mut query = transaction.prepare_cached("SELECT 1 FROM sqlite_sequence WHERE name = 'domain' AND seq > 0")?;
    query.exists([])
}

/// Whether the database owns the domains in Redis, so that it may remove unmapped ones: it has had a mapping, and Redis had no
/// foreign domains, or the old database was imported, or the operator accepted their removal.
pub(super) fn owns_redis(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    Ok(transaction.prepare("SELECT 1 FROM mark WHERE name = 'adopted'")?.exists([])? && ever_held(transaction)?)
}

/// Makes the database the owner of the domains in Redis.
pub(super) fn adopt_redis(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("INSERT OR IGNORE INTO mark(name) VALUES ('adopted')", [])?;
    Ok(())
}

/// Gives up that ownership: Redis has foreign domains.
pub(super) fn disown_redis(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM mark WHERE name = 'adopted'", [])?;
    Ok(())
}

/// A mapping with its project, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct OwnedMapping {
    pub project: String,
    #[serde(flatten)]
    pub mapping: Mapping,
}

/// All mappings, of one project if given, ordered by their labels from the right.
pub(super) fn all_mappings(
    transaction: &Transaction<'_>,
    project: Option<&str>,
) -> rusqlite::Result<Vec<OwnedMapping>> {
    let mut query = transaction.prepare(
        "SELECT project.name, domain.name, backend.url FROM domain JOIN project ON project.id = domain.project
         JOIN backend ON backend.domain = domain.id
         WHERE ?1 IS NULL OR project.name = ?1 ORDER BY domain.labels, domain.name, backend.id",
    )?;
    let mut all: Vec<OwnedMapping> = Vec::new();
    let mut rows = query.query([project])?;
    while let Some(row) = rows.next()? {
        let (domain, url) = (row.get_ref(1)?.as_str()?, row.get(2)?);
        match all.last_mut() {
            Some(last) if last.mapping.domain == domain => last.mapping.backends.push(url),
            _ => {
                let mapping = Mapping { domain: domain.to_owned(), backends: vec![url] };
                all.push(OwnedMapping { project: row.get(0)?, mapping });
            }
        }
    }
    Ok(all)
}

/// The number of domains.
pub(super) fn count_domains(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let mut query = transaction.prepare_cached("SELECT number FROM total WHERE name = 'domains'")?;
    query.query_row([], |row| row.get(0))
}
