//! Imports the old API's database, with its tables `project`, `route` and `backend`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction};

use super::api_error::ApiError;
use super::audit::{Action, Author};
use super::change;
use super::database::{Database, DatabaseError};
use super::mapping::{Mapping, adopt_redis, backends_of, find_project};
use super::mapping_policy::MappingPolicy;
use super::ownership::belongs_to_another_project;
use super::resolver::{Resolved, look_up_all};

/// Longest text read from a column, in bytes; the old columns took 256 characters.
const MAX_TEXT: usize = 1024;

/// Why an import failed; nothing is imported then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(
        "{error} while reading {path:?}, expected the old API's data.db with the tables project, route and backend"
    )]
    Old { path: PathBuf, error: rusqlite::Error },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A route of the old database.
#[derive(Debug, PartialEq, Eq)]
struct OldRoute {
    project: String,
    domain: String,
    backends: Vec<String>,
}

/// The result of an import.
#[derive(Debug, Default)]
struct ImportReport {
    imported: usize,
    unchanged: usize,
    skipped: usize,
    lines: String,
}

/// Imports all allowed rows in one transaction, and returns a report of every row. A repeated import changes nothing.
pub(super) fn import(
    database: &Database,
    policy: &MappingPolicy,
    who: &str,
    old: &Path,
) -> Result<String, ImportError> {
    let (routes, mut report) = read_old(old).map_err(|error| ImportError::Old { path: old.to_owned(), error })?;
    // Before the transaction, as lookups may be slow.
    let resolved = look_up_all(routes.iter().flat_map(|route| policy.names_of(&route.backends)).collect());
    let imported = database.write(|transaction| {
        for route in &routes {
            import_route(transaction, policy, who, &resolved, route, &mut report)?;
        }
        // After an import without mappings, the domains in Redis remain foreign.
        if report.imported + report.unchanged > 0 { adopt_redis(transaction) } else { Ok(()) }
    });
    imported.map_err(|error| database.failed(error))?;
    let ImportReport { imported, unchanged, skipped, lines } = report;
    Ok(format!("{lines}{imported} imported, {unchanged} already present, {skipped} skipped\n"))
}

fn import_route(
    transaction: &Transaction<'_>,
    policy: &MappingPolicy,
    who: &str,
    resolved: &Resolved,
    route: &OldRoute,
    report: &mut ImportReport,
) -> rusqlite::Result<()> {
    let OldRoute { project, domain, backends } = route;
    let mut allowed = Vec::new();
    for backend in backends {
        let backend_alone = std::slice::from_ref(backend);
        match policy
            .backends(backend_alone)
            .and_then(|canonical| policy.check_resolved(&canonical, resolved).map(|()| canonical))
        {
            Ok(canonical) => allowed.extend(canonical),
            Err(error) => report.skip(&format!("backend {backend:?} of domain {domain:?}"), &error),
        }
    }
    let shown = format!("domain {domain:?} of project {project:?}");
    if allowed.is_empty() {
        report.skip(&shown, &"it has no backends");
        return Ok(());
    }
    if let Some(existing) = own(transaction, policy, project, domain)? {
        report.unchanged += 1;
        if allowed.iter().any(|backend| !existing.contains(backend)) {
            report.add_line(&format!("kept {shown}: already present with other backends"));
        }
        return Ok(());
    }
    // The old API's domains are imported even above or below another project's; operators can move them later.
    let author = Author { who, project, is_operator: true };
    let wanted = Mapping { domain: domain.clone(), backends: allowed };
    match change::put(transaction, policy, author, &wanted, Action::Import) {
        Ok(changed) if changed.action.is_some() => {
            report.imported += 1;
            report.add_line(&format!("imported {shown}"));
            let id = find_project(transaction, project)?;
            if belongs_to_another_project(transaction, &policy.suffixes, &changed.domain, id)? {
                report.add_line(&format!("note: {shown} is above or below another project's; see `check`"));
            }
        }
        Ok(_) => report.unchanged += 1,
        Err(ApiError::Sqlite(error)) => return Err(error),
        Err(error) => report.skip(&shown, &error.detail()),
    }
    Ok(())
}

/// The backends of a domain that the project already has.
fn own(
    transaction: &Transaction<'_>,
    policy: &MappingPolicy,
    project: &str,
    domain: &str,
) -> rusqlite::Result<Option<Vec<String>>> {
    let Ok(domain) = policy.domain(domain) else { return Ok(None) };
    match change::find_own_domain(transaction, project, domain.as_str()) {
        Ok(_) => backends_of(transaction, domain.as_str()).map(Some),
        Err(ApiError::Sqlite(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

impl ImportReport {
    fn skip(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.skipped += 1;
        self.add_line(&format!("skipped {what}: {why}"));
    }

    fn add_line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "{line}");
    }
}

/// Reads all routes with their projects from a consistent state of the file; reports orphaned rows.
fn read_old(path: &Path) -> rusqlite::Result<(Vec<OldRoute>, ImportReport)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let transaction = connection.transaction()?;
    let mut report = ImportReport::default();
    let mut backends: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let mut query = transaction.prepare(
        "SELECT backend.id, CAST(backend.url AS TEXT), route.id FROM backend LEFT JOIN route ON route.id = backend.route_id
         ORDER BY backend.id",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        match (text(row, 1)?, row.get::<_, Option<i64>>(2)?) {
            (Some(url), Some(route)) => backends.entry(route).or_default().push(url),
            (None, _) => report.skip(&format!("backend number {id}"), &"it has no URL"),
            (Some(url), None) => report.skip(&format!("backend {url:?}"), &"it belongs to no route"),
        }
    }
    let mut query = transaction.prepare(
        "SELECT route.id, CAST(route.domain AS TEXT), CAST(project.name AS TEXT) FROM route
         LEFT JOIN project ON project.id = route.project_id ORDER BY route.id",
    )?;
    let mut rows = query.query([])?;
    let mut routes = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        match (text(row, 1)?, text(row, 2)?) {
            (Some(domain), Some(project)) => {
                routes.push(OldRoute { project, domain, backends: backends.remove(&id).unwrap_or_default() });
            }
            (None, _) => report.skip(&format!("route number {id}"), &"it has no domain"),
            (Some(domain), None) => report.skip(&format!("domain {domain:?}"), &"it belongs to no project"),
        }
    }
    Ok((routes, report))
}

/// A column's text; `None` for NULL. Invalid UTF-8 is replaced, which makes the name invalid.
fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let value = row.get_ref(column)?;
    let bytes = value.as_bytes_or_null()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes)).into_owned()))
}
