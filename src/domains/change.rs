//! Changes of mappings: each change, its outbox rows and its audit row are one transaction.

use rusqlite::{Transaction, params};

use super::api_error::ApiError;
use super::audit::{Action, Author, Entry, record};
use super::mapping::{DomainRow, Mapping, backends_of, count_domains, find_domain, find_project};
use super::mapping_policy::{MappingPolicy, is_project};
use super::outbox;
use super::ownership::{belongs_to_another_project, labels_of};

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    /// Redis has the change once it has the outbox up to this number.
    pub seq: i64,
    /// `None` if nothing had to change.
    pub action: Option<Action>,
    pub domain: String,
    /// The domain's new name, after a rename.
    pub renamed_to: Option<String>,
}

impl Changed {
    fn nothing(transaction: &Transaction<'_>, domain: &str) -> rusqlite::Result<Self> {
        // Replicated again, so that the header `Urlproxy-Replicated` is true even if Redis lacks the domain.
        let seq = outbox::add(transaction, domain)?;
        Ok(Self { seq, action: None, domain: domain.to_owned(), renamed_to: None })
    }
}

/// Adds backends to a domain, for a PUT or an import; creates the domain and the project if necessary.
///
/// # Errors
/// A name or backend is invalid; the domain is reserved, or belongs to another project; a quota is reached.
pub(super) fn put(
    transaction: &Transaction<'_>,
    policy: &MappingPolicy,
    author: Author<'_>,
    wanted: &Mapping,
    action: Action,
) -> Result<Changed, ApiError> {
    if !is_project(author.project) {
        return Err(ApiError::Project);
    }
    let wanted = canonical(policy, wanted)?;
    let project = find_project(transaction, author.project)?;
    let existing = find_domain(transaction, &wanted.domain)?;
    match existing {
        Some(row) if Some(row.project) != project => return Err(ApiError::Taken),
        Some(_) => {}
        None => check_new(transaction, policy, author, &wanted.domain, project)?,
    }
    let before = backends_of(transaction, &wanted.domain)?;
    let added: Vec<&String> = wanted.backends.iter().filter(|backend| !before.contains(backend)).collect();
    if before.len() + added.len() > policy.max_backends && !added.is_empty() {
        return Err(ApiError::TooManyBackends(policy.max_backends));
    }
    if added.is_empty() {
        return Ok(Changed::nothing(transaction, &wanted.domain)?);
    }
    let id = match (existing, project) {
        (Some(row), _) => row.id,
        (None, project) => {
            let project = match project {
                Some(project) => project,
                None => {
                    remove_empty_projects(transaction, policy.max_total_domains)?;
                    add_project(transaction, author.project)?
                }
            };
            add_domain(transaction, policy, project, &wanted.domain)?
        }
    };
    add_backends(transaction, id, added.iter().copied())?;
    let after = Mapping { domain: wanted.domain, backends: before.iter().chain(added).cloned().collect() };
    let before = existing.map(|_| Mapping { domain: after.domain.clone(), backends: before });
    record(transaction, &Entry { author, action, domain: &after.domain, before, after: Some(after.clone()) })?;
    let seq = outbox::add(transaction, &after.domain)?;
    Ok(Changed { seq, action: Some(action), domain: after.domain, renamed_to: None })
}

/// Replaces a domain's backends, and renames it if `wanted` has another name.
///
/// # Errors
/// No such domain; a name or backend is invalid; the new name is mapped, reserved, or belongs to another project; a quota is
/// reached.
pub(super) fn replace(
    transaction: &Transaction<'_>,
    policy: &MappingPolicy,
    author: Author<'_>,
    domain: &str,
    wanted: Result<Mapping, ApiError>,
) -> Result<Changed, ApiError> {
    let row = find_own_domain(transaction, author.project, domain)?;
    let after = canonical(policy, &wanted?)?;
    if after.backends.len() > policy.max_backends {
        return Err(ApiError::TooManyBackends(policy.max_backends));
    }
    let is_renamed = after.domain != domain;
    if is_renamed {
        if find_domain(transaction, &after.domain)?.is_some() {
            return Err(ApiError::Taken);
        }
        check_new(transaction, policy, author, &after.domain, Some(row.project))?;
    }
    let before = Mapping { domain: domain.to_owned(), backends: backends_of(transaction, domain)? };
    if before == after {
        return Ok(Changed::nothing(transaction, domain)?);
    }
    transaction.execute("DELETE FROM backend WHERE domain = ?", [row.id])?;
    if is_renamed {
        let renamed = params![after.domain, labels_of(&after.domain), row.id];
        transaction.execute("UPDATE domain SET name = ?, labels = ? WHERE id = ?", renamed)?;
        outbox::add(transaction, domain)?;
    }
    add_backends(transaction, row.id, after.backends.iter())?;
    let seq = outbox::add(transaction, &after.domain)?;
    let renamed_to = is_renamed.then(|| after.domain.clone());
    let action = if is_renamed { Action::Rename } else { Action::Replace };
    record(transaction, &Entry { author, action, domain, before: Some(before), after: Some(after) })?;
    Ok(Changed { seq, action: Some(action), domain: domain.to_owned(), renamed_to })
}

/// Removes a domain. Its project stays, even without domains.
///
/// # Errors
/// No such project or domain.
pub(super) fn delete(transaction: &Transaction<'_>, author: Author<'_>, domain: &str) -> Result<Changed, ApiError> {
    let row = find_own_domain(transaction, author.project, domain)?;
    let before = Mapping { domain: domain.to_owned(), backends: backends_of(transaction, domain)? };
    transaction.execute("DELETE FROM domain WHERE id = ?", [row.id])?;
    record(transaction, &Entry { author, action: Action::Delete, domain, before: Some(before), after: None })?;
    let seq = outbox::add(transaction, domain)?;
    Ok(Changed { seq, action: Some(Action::Delete), domain: domain.to_owned(), renamed_to: None })
}

/// Moves a domain to another project, created if necessary; returns the previous project.
///
/// # Errors
/// No such domain.
pub(super) fn move_to(
    transaction: &Transaction<'_>,
    who: &str,
    domain: &str,
    project: &str,
) -> Result<String, ApiError> {
    let row = find_domain(transaction, domain)?.ok_or(ApiError::NoSuchDomain)?;
    let from: String =
        transaction.query_row("SELECT name FROM project WHERE id = ?", [row.project], |row| row.get(0))?;
    if from == project {
        return Ok(from);
    }
    let id = find_project(transaction, project)?.map_or_else(|| add_project(transaction, project), Ok)?;
    transaction.execute("UPDATE domain SET project = ? WHERE id = ?", [id, row.id])?;
    let mapping = Mapping { domain: domain.to_owned(), backends: backends_of(transaction, domain)? };
    // One audit row for each project.
    let author = |project| Author { who, project, is_operator: true };
    let left =
        Entry { author: author(&from), action: Action::MoveAway, domain, before: Some(mapping.clone()), after: None };
    record(transaction, &left)?;
    let arrived =
        Entry { author: author(project), action: Action::MoveHere, domain, before: None, after: Some(mapping) };
    record(transaction, &arrived)?;
    Ok(from)
}

/// Checks whether a project may take an unmapped domain.
fn check_new(
    transaction: &Transaction<'_>,
    policy: &MappingPolicy,
    author: Author<'_>,
    domain: &str,
    project: Option<i64>,
) -> Result<(), ApiError> {
    if author.is_operator {
        Ok(())
    } else if policy.reserved.covers(domain) {
        Err(ApiError::Reserved)
    } else if belongs_to_another_project(transaction, &policy.suffixes, domain, project)? {
        Err(ApiError::Taken)
    } else {
        Ok(())
    }
}

/// Finds a domain of a project. A domain of another project is `NoSuchDomain`.
pub(super) fn find_own_domain(
    transaction: &Transaction<'_>,
    project: &str,
    domain: &str,
) -> Result<DomainRow, ApiError> {
    let project = find_project(transaction, project)?.ok_or(ApiError::NoSuchProject)?;
    let row = find_domain(transaction, domain)?;
    row.filter(|row| row.project == project).ok_or(ApiError::NoSuchDomain)
}

/// With `limit` projects or more, removes the two oldest ones that have neither domains nor tokens: clients can create any number
/// of projects, and empty ones stay. Two, so that the number also falls to a lowered limit.
fn remove_empty_projects(transaction: &Transaction<'_>, limit: usize) -> rusqlite::Result<()> {
    let projects: i64 = transaction.query_row("SELECT count(*) FROM project", [], |row| row.get(0))?;
    if usize::try_from(projects).is_ok_and(|projects| projects >= limit) {
        transaction.execute(
            "DELETE FROM project WHERE id IN (
                 SELECT id FROM project WHERE NOT EXISTS (SELECT 1 FROM domain WHERE domain.project = project.id)
                     AND NOT EXISTS (SELECT 1 FROM token WHERE token.project = project.id) ORDER BY id LIMIT 2)",
            [],
        )?;
    }
    Ok(())
}

pub(super) fn add_project(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
    transaction.execute("INSERT INTO project(name) VALUES (?)", [name])?;
    Ok(transaction.last_insert_rowid())
}

fn add_domain(
    transaction: &Transaction<'_>,
    policy: &MappingPolicy,
    project: i64,
    name: &str,
) -> Result<i64, ApiError> {
    let mut count = transaction.prepare_cached("SELECT count(*) FROM domain WHERE project = ?")?;
    let domains: i64 = count.query_row([project], |row| row.get(0))?;
    if usize::try_from(domains).is_ok_and(|domains| domains >= policy.max_domains) {
        return Err(ApiError::TooManyDomains(policy.max_domains));
    }
    if usize::try_from(count_domains(transaction)?).is_ok_and(|domains| domains >= policy.max_total_domains) {
        return Err(ApiError::TooManyInTotal(policy.max_total_domains));
    }
    let mut insert = transaction.prepare_cached("INSERT INTO domain(name, project, labels) VALUES (?, ?, ?)")?;
    insert.execute(params![name, project, labels_of(name)])?;
    Ok(transaction.last_insert_rowid())
}

fn add_backends<'a>(
    transaction: &Transaction<'_>,
    domain: i64,
    urls: impl Iterator<Item = &'a String>,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached("INSERT INTO backend(domain, url) VALUES (?, ?)")?;
    for url in urls {
        insert.execute(params![domain, url])?;
    }
    Ok(())
}

fn canonical(policy: &MappingPolicy, wanted: &Mapping) -> Result<Mapping, ApiError> {
    let domain = policy.domain(&wanted.domain)?.as_str().to_owned();
    Ok(Mapping { domain, backends: policy.backends(&wanted.backends)? })
}
