//! Operators' commands for any project's domains. They work while the server runs: it replicates the change, and the audit log
//! names the user.

use std::fmt::Write as _;

use rusqlite::Transaction;
use serde::Serialize;
use serde_json::json;

use super::api_error::ApiError;
use super::audit::{Action, Author};
use super::change;
use super::command_error::CommandError;
use super::database::Database;
use super::mapping::{Mapping, OwnedMapping, all_mappings, find_domain, find_project};
use super::mapping_policy::MappingPolicy;
use super::options::DomainCommand;
use super::ownership::{belongs_to_another_project, conflicts};
use super::resolver::look_up_all;
use crate::daemon::calling_user;
use crate::route::Domain;

/// Runs the command, and returns the text to print.
pub(super) fn execute(
    database: &Database,
    policy: &MappingPolicy,
    command: DomainCommand,
) -> Result<String, CommandError> {
    match command {
        DomainCommand::List { project, json } => {
            list(&database.read(|transaction| all_mappings(transaction, project.as_deref()))?, json)
        }
        DomainCommand::Map { project, domain, backends } => map(database, policy, &project, domain, backends),
        DomainCommand::Move { domain, project } => {
            let domain = canonical_domain(&domain)?;
            let from = database.write(|transaction| change::move_to(transaction, &calling_user(), &domain, &project));
            let from = from.map_err(|error| CommandError::of(database, error, &domain))?;
            let note = note(database, policy, &project, &domain)?;
            Ok(format!("moved {domain} from project {from} to project {project}\n{note}"))
        }
        DomainCommand::Remove { domain } => {
            let domain = canonical_domain(&domain)?;
            let removed = database.write(|transaction| {
                let project = owner(transaction, &domain)?.ok_or(ApiError::NoSuchDomain)?;
                let author = Author { who: &calling_user(), project: &project, is_operator: true };
                change::delete(transaction, author, &domain).map(|_| project)
            });
            let project = removed.map_err(|error| CommandError::of(database, error, &domain))?;
            Ok(format!("removed {domain} of project {project}\n"))
        }
    }
}

fn list(all: &[OwnedMapping], as_json: bool) -> Result<String, CommandError> {
    if as_json {
        return Ok(json_text(&all));
    }
    let mut text = String::from("PROJECT\tDOMAIN\tBACKENDS\n");
    for OwnedMapping { project, mapping: Mapping { domain, backends } } in all {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{project}\t{domain}\t{}", backends.join(" "));
    }
    Ok(text)
}

fn map(
    database: &Database,
    policy: &MappingPolicy,
    project: &str,
    domain: String,
    backends: Vec<String>,
) -> Result<String, CommandError> {
    let refused = |error, domain: &str| CommandError::of(database, error, domain);
    let resolved = look_up_all(policy.names_of(&backends));
    policy.check_resolved(&backends, &resolved).map_err(|error| refused(error.into(), &domain))?;
    let wanted = Mapping { domain, backends };
    let author = Author { who: &calling_user(), project, is_operator: true };
    let put = database.write(|transaction| change::put(transaction, policy, author, &wanted, Action::Put));
    let changed = put.map_err(|error| refused(error, &wanted.domain))?;
    let note = note(database, policy, project, &changed.domain)?;
    let result = if changed.action.is_some() { "mapped" } else { "unchanged:" };
    Ok(format!("{result} {} of project {project}\n{note}", changed.domain))
}

/// A warning about related domains of other projects.
fn note(database: &Database, policy: &MappingPolicy, project: &str, domain: &str) -> Result<String, CommandError> {
    let belongs_to_another_project = database.read(|transaction| {
        let project = find_project(transaction, project)?;
        belongs_to_another_project(transaction, &policy.suffixes, domain, project)
    })?;
    Ok(if belongs_to_another_project {
        "note: another project has a domain above or below it; see `check`\n".into()
    } else {
        String::new()
    })
}

/// The name of the project that has a domain.
fn owner(transaction: &Transaction<'_>, domain: &str) -> rusqlite::Result<Option<String>> {
    let Some(row) = find_domain(transaction, domain)? else { return Ok(None) };
    transaction.query_row("SELECT name FROM project WHERE id = ?", [row.project], |row| row.get(0)).map(Some)
}

fn canonical_domain(domain: &str) -> Result<String, CommandError> {
    let no_domain = |_| CommandError::NoSuchDomain(domain.to_owned());
    Domain::normalize(domain).map(|domain| domain.as_str().to_owned()).map_err(no_domain)
}

/// A mapping that today's rules would refuse.
#[derive(Debug, Serialize)]
struct PolicyViolation {
    kind: &'static str,
    project: String,
    domain: String,
    detail: String,
}

/// Lists all mappings that today's rules would refuse. Changes nothing.
pub(super) fn check(database: &Database, policy: &MappingPolicy, as_json: bool) -> Result<String, CommandError> {
    let (all, conflicts) = database
        .read(|transaction| Ok((all_mappings(transaction, None)?, conflicts(transaction, &policy.suffixes)?)))?;
    let mut violations: Vec<PolicyViolation> = Vec::new();
    for conflict in conflicts {
        let detail = format!("belongs to {} of project {}", conflict.above, conflict.above_project);
        violations.push(PolicyViolation {
            kind: "conflict",
            project: conflict.project,
            domain: conflict.domain,
            detail,
        });
    }
    for OwnedMapping { project, mapping: Mapping { domain, backends } } in all {
        let mut add = |kind, detail| {
            violations.push(PolicyViolation { kind, project: project.clone(), domain: domain.clone(), detail });
        };
        if let Err(error) = policy.domain(&domain) {
            add("domain", error.to_string());
        }
        if policy.reserved.covers(&domain) {
            add("reserved", "reserved for the operators".into());
        }
        if let Err(error) = policy.backends(&backends) {
            add("backend", error.to_string());
        }
    }
    if as_json {
        return Ok(json_text(&json!(violations)));
    }
    let mut text = String::from("KIND\tPROJECT\tDOMAIN\tWHY\n");
    for PolicyViolation { kind, project, domain, detail } in violations {
        let _ = writeln!(text, "{kind}\t{project}\t{domain}\t{detail}");
    }
    Ok(text)
}

/// Formats a value of strings and numbers as JSON.
pub(super) fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
