//! `delete`: one route of a tool, or all of them.

use serde_json::json;

use crate::ctl::arguments::parse_tool;
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::redis_entries::{Entry, read_some};
use crate::daemon::Store;
use crate::escape::escaped;
use crate::registry::{Withdrawal, delete_route, delete_tool};
use crate::route::{Kind, ToolName};
use crate::text::counted;

/// Removes the route, or after a confirmation all routes; negative if there are none, or the operator declines.
pub async fn run(
    store: &Store,
    console: &mut Console,
    tool: &str,
    pattern: Option<&str>,
    is_confirmed: bool,
) -> Result<Answer, CtlError> {
    let tool = parse_tool(tool).map_err(CtlError::Usage)?;
    let (removed, is_declined) = match pattern {
        Some(pattern) => {
            let outcome = store.commit(&delete_route(&tool, pattern)).await?;
            (if outcome == Withdrawal::Removed { vec![pattern.to_owned()] } else { vec![] }, false)
        }
        None => {
            let patterns = patterns(store, &tool).await?;
            if !patterns.is_empty() && !is_confirmed && !may_delete(console, &tool, &patterns)? {
                (vec![], true)
            } else {
                let outcome = store.commit(&delete_tool(&tool)).await?;
                (if outcome == Withdrawal::Removed { patterns } else { vec![] }, false)
            }
        }
    };
    if console.is_json {
        console.json(&json!({"tool": tool.as_str(), "removed": removed}))?;
    } else if is_declined {
        console.line("nothing deleted")?;
    } else if removed.is_empty() {
        let pattern = pattern.map(|pattern| format!(" with the pattern {pattern:?}")).unwrap_or_default();
        console.line(escaped(format!("tool {:?} has no route{pattern}", tool.as_str())))?;
    } else {
        for pattern in &removed {
            console.line(escaped(format!("deleted: {tool} {pattern}")))?;
        }
    }
    Ok(Answer::positive_if(!removed.is_empty()))
}

fn may_delete(console: &Console, tool: &ToolName, patterns: &[String]) -> Result<bool, CtlError> {
    if !console.can_ask() {
        // A script must say what it wants.
        return Err(CtlError::usage("deleting all routes of a tool needs --yes, or a terminal to ask on"));
    }
    let routes = counted(patterns.len() as u64, "route");
    let shown = patterns.join("  ");
    Ok(console.confirm(format!("Delete {routes} of tool {:?} ({shown})?", tool.as_str()))?)
}

/// The patterns of a tool's routes and redirects in Redis.
async fn patterns(store: &Store, tool: &ToolName) -> Result<Vec<String>, CtlError> {
    let names = [Kind::Tool, Kind::Redirect].map(|kind| (kind, tool.as_bytes().to_vec()));
    let mut patterns: Vec<String> = Vec::new();
    for ((kind, _), entry) in read_some(store, &names).await? {
        match entry {
            Entry::Hash(fields) => {
                patterns.extend(fields.keys().map(|field| String::from_utf8_lossy(field).into_owned()));
            }
            Entry::Set(_) if kind == Kind::Tool => patterns.push(".*".into()),
            // Whatever it is, it is deleted.
            _ => patterns.push(String::new()),
        }
    }
    patterns.sort();
    patterns.dedup();
    Ok(patterns)
}
