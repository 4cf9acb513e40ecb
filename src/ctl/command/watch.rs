//! `watch`: changes of the table as they happen.

use std::time::Duration;

use serde_json::Value;

use crate::ctl::admin_client::{AdminClient, AdminError};
use crate::ctl::api::{ChangeItem, Changes};
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::text_table::{BAD, FAINT, GOOD, WARN};
use crate::ctl::words::time;
use crate::escape::escaped;
use crate::text::counted;

/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(500);
/// Changes per request.
const LIMIT: usize = 1000;
const PATH: &str = "api/changes";

/// Prints changes until the program is ended, or `count` of them.
pub async fn run(
    admin: &AdminClient,
    console: &mut Console,
    after: Option<u64>,
    count: Option<u64>,
) -> Result<Answer, CtlError> {
    let mut after = match after {
        Some(after) => after,
        None => ask(admin, None).await?.1.last,
    };
    let mut left = count.unwrap_or(u64::MAX);
    let mut is_reachable = true;
    loop {
        match ask(admin, Some(after)).await {
            Ok((value, changes)) => {
                if !is_reachable {
                    console.note("nginx answers again");
                    is_reachable = true;
                }
                if changes.last < after {
                    console.note("nginx has started again; its changes are numbered anew");
                    after = 0;
                    continue;
                }
                if changes.missed > 0 {
                    console
                        .note(format_args!("{} missed: nginx no longer has them", counted(changes.missed, "change")));
                }
                let values = value.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                for (item, value) in changes.items.iter().zip(values) {
                    print(console, item, value)?;
                    left -= 1;
                    if left == 0 {
                        return Ok(Answer::Positive);
                    }
                }
                console.flush()?;
                after = changes.last;
                if changes.items.len() >= LIMIT {
                    continue;
                }
            }
            Err(error) if is_reachable => {
                console.note(format_args!("{error}; trying again"));
                is_reachable = false;
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn ask(admin: &AdminClient, after: Option<u64>) -> Result<(Value, Changes), AdminError> {
    let after = after.map(|after| after.to_string());
    let limit = LIMIT.to_string();
    let parameters: Vec<_> = match &after {
        Some(after) => vec![("after", after.as_str()), ("limit", &limit)],
        None => vec![("limit", "1")],
    };
    let value = admin.get(PATH, &parameters).await?;
    let changes = admin.read(PATH, value.clone())?;
    Ok((value, changes))
}

fn print(console: &mut Console, item: &ChangeItem, value: &Value) -> Result<(), CtlError> {
    if console.is_json {
        console.json_line(value)?;
        return Ok(());
    }
    console.line(line(item))?;
    Ok(())
}

/// A change in words.
pub fn line(item: &ChangeItem) -> String {
    let ChangeItem { change, kind, name, routes, backend, .. } = item;
    let style = match change.as_str() {
        "added" => GOOD,
        "removed" => BAD,
        _ => WARN,
    };
    let at = time(item.at);
    let what = escaped(format!("{change:<8}"));
    let backend = backend.as_deref().unwrap_or_default();
    let more = if *routes > 1 { format!(" and {}", counted(routes - 1, "more route")) } else { String::new() };
    let text = escaped(format!("{kind} {name} {backend}{more}"));
    format!("{FAINT}{at}{FAINT:#} {style}{what}{style:#} {}", text.trim_end())
}
