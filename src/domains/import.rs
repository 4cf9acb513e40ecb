//! Bringing in the old API's database: tables `project`, `route` and `backend`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction};

use super::audit::{Action, Author};
use super::change;
use super::database::{Database, DatabaseError};
use super::mapping::{Mapping, adopt_redis, backends_of, find_project};
use super::ownership::is_anothers;
use super::policy::Policy;
use super::refusal::Refusal;
use super::resolver::{Resolved, look_up_at_leisure};

/// Longest text that is taken from a column: what the old one had room for, and then some.
const MAX_TEXT: usize = 1024;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The old database.
    #[error(
        "{error} while reading {path:?}, expected the old API's data.db with the tables project, route and backend"
    )]
    Old {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// The new one.
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

/// What became of it all.
#[derive(Debug, Default)]
struct Account {
    imported: usize,
    unchanged: usize,
    skipped: usize,
    lines: String,
}

/// Imports what may be, in one transaction, and tells of every row what became of it. Doing it again changes nothing.
pub(super) fn import(database: &Database, policy: &Policy, who: &str, old: &Path) -> Result<String, ImportError> {
    let (routes, mut account) = read_old(old).map_err(|error| ImportError::Old { path: old.to_owned(), error })?;
    // Before the transaction: names may take their time.
    let resolved = look_up_at_leisure(routes.iter().flat_map(|route| policy.names_of(&route.backends)).collect());
    let imported = database.write(|transaction| {
        for route in &routes {
            import_route(transaction, policy, who, &resolved, route, &mut account)?;
        }
        // A file of nothing says nothing of what Redis has.
        if account.imported + account.unchanged > 0 { adopt_redis(transaction) } else { Ok(()) }
    });
    imported.map_err(|error| database.failed(error))?;
    let Account { imported, unchanged, skipped, lines } = account;
    Ok(format!("{lines}{imported} imported, {unchanged} there already, {skipped} skipped\n"))
}

fn import_route(
    transaction: &Transaction<'_>,
    policy: &Policy,
    who: &str,
    resolved: &Resolved,
    route: &OldRoute,
    account: &mut Account,
) -> rusqlite::Result<()> {
    let OldRoute { project, domain, backends } = route;
    let mut allowed = Vec::new();
    for backend in backends {
        let backend_alone = std::slice::from_ref(backend);
        match policy
            .backends(backend_alone)
            .and_then(|normal| policy.check_resolved(&normal, resolved).map(|()| normal))
        {
            Ok(normal) => allowed.extend(normal),
            Err(fault) => account.skip(&format!("backend {backend:?} of domain {domain:?}"), &fault),
        }
    }
    let shown = format!("domain {domain:?} of project {project:?}");
    if allowed.is_empty() {
        account.skip(&shown, &"it has no backends");
        return Ok(());
    }
    if let Some(existing) = own(transaction, policy, project, domain)? {
        account.unchanged += 1;
        if allowed.iter().any(|backend| !existing.contains(backend)) {
            account.tell(&format!("left {shown} as it is: it is there already, with other backends"));
        }
        return Ok(());
    }
    // What the old API had stays as it is, also above or below another project's; an operator may then move it.
    let author = Author { who, project, is_operator: true };
    let wanted = Mapping { domain: domain.clone(), backends: allowed };
    match change::put(transaction, policy, author, &wanted, Action::Import) {
        Ok(changed) if changed.action.is_some() => {
            account.imported += 1;
            account.tell(&format!("imported {shown}"));
            let id = find_project(transaction, project)?;
            if is_anothers(transaction, &policy.suffixes, &changed.domain, id)? {
                account.tell(&format!("note: {shown} is above or below another project's; see `check`"));
            }
        }
        Ok(_) => account.unchanged += 1,
        Err(Refusal::Sqlite(error)) => return Err(error),
        Err(refusal) => account.skip(&shown, &refusal.detail()),
    }
    Ok(())
}

/// The backends of a domain that the project has already.
fn own(
    transaction: &Transaction<'_>,
    policy: &Policy,
    project: &str,
    domain: &str,
) -> rusqlite::Result<Option<Vec<String>>> {
    let Ok(domain) = policy.domain(domain) else { return Ok(None) };
    match change::own_domain(transaction, project, domain.as_str()) {
        Ok(_) => backends_of(transaction, domain.as_str()).map(Some),
        Err(Refusal::Sqlite(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

impl Account {
    fn skip(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.skipped += 1;
        self.tell(&format!("skipped {what}: {why}"));
    }

    fn tell(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "{line}");
    }
}

/// Reads all routes with their projects, from one state of the file; rows that belong to nothing are accounted for.
fn read_old(path: &Path) -> rusqlite::Result<(Vec<OldRoute>, Account)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let transaction = connection.transaction()?;
    let mut account = Account::default();
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
            (None, _) => account.skip(&format!("backend number {id}"), &"it has no URL"),
            (Some(url), None) => account.skip(&format!("backend {url:?}"), &"it belongs to no route"),
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
            (None, _) => account.skip(&format!("route number {id}"), &"it has no domain"),
            (Some(domain), None) => account.skip(&format!("domain {domain:?}"), &"it belongs to no project"),
        }
    }
    Ok((routes, account))
}

/// A column's text; `None` for NULL. Bytes that are no text are replaced, and then refused as a name.
fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let value = row.get_ref(column)?;
    let bytes = value.as_bytes_or_null()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes)).into_owned()))
}
