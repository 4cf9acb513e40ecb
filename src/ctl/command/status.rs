//! `status`: health in words.

use crate::ctl::admin_client::AdminClient;
use crate::ctl::api::{Held, IN_STEP, Status};
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::text_table::{BAD, GOOD, WARN};
use crate::ctl::words::{ago, time};
use crate::escape::escaped;
use crate::text::{count, counted, span};

/// Prints the table's health; negative unless it is in step.
pub async fn run(admin: &AdminClient, console: &mut Console) -> Result<Answer, CtlError> {
    let path = "api/status";
    let value = admin.get(path, &[]).await?;
    let status: Status = admin.read(path, value.clone())?;
    let is_in_step = status.summary.state == IN_STEP;
    if console.is_json {
        console.json(&value)?;
        return Ok(Answer::positive_if(is_in_step));
    }
    lines(&status).iter().try_for_each(|line| console.line(line))?;
    Ok(Answer::positive_if(is_in_step))
}

/// The health in words, line by line.
pub fn lines(status: &Status) -> Vec<String> {
    let style = if status.summary.state == IN_STEP { GOOD } else { BAD };
    let mut lines = vec![format!("{style}{}{style:#}", escaped(&status.summary.text))];
    lines.extend(details(status).into_iter().map(|(what, text)| format!("{what:<10} {}", escaped(text))));
    lines.extend(
        status
            .held
            .as_ref()
            .map(|held| format!("{WARN}{:<10} {}{WARN:#}", "held", escaped(held_text(held, status.now)))),
    );
    lines
}

fn details(status: &Status) -> Vec<(&'static str, String)> {
    let Status { counts, capacity, source, now, .. } = status;
    let kinds = [(counts.tools, "tool"), (counts.redirects, "redirect"), (counts.domains, "domain")];
    let kinds = kinds.map(|(number, noun)| counted(number, noun)).join(", ");
    let used = capacity.memory_used_bytes as f64 * 100.0 / capacity.memory_bytes.max(1) as f64;
    let source_state = match (source.connected, source.since) {
        (true, Some(since)) => format!("connected since {}", ago(Some(since), *now)),
        (true, None) => "connected".into(),
        (false, None) => "connecting".into(),
        (false, since) => {
            let error = source.error.as_deref().unwrap_or("no connection yet");
            format!("unreachable since {}: {error}", ago(since, *now))
        }
    };
    let mut details = vec![
        ("table", format!("{}: {kinds}, {}", status.table, counted(counts.routes, "route"))),
        (
            "memory",
            format!(
                "{used:.1} % of {}, room for {} records",
                mebibytes(capacity.memory_bytes),
                count(capacity.records)
            ),
        ),
        ("source", format!("{}, {source_state}", source.url)),
        ("compared", ago(source.last_resync_at, *now)),
        ("changed", ago(status.last_change_at, *now)),
    ];
    if let Some(snapshot) = &status.snapshot {
        let failed = if snapshot.failed { ", the last write failed" } else { "" };
        details.push(("snapshot", format!("{}, written {}{failed}", snapshot.path, ago(snapshot.written_at, *now))));
    }
    if status.rejected.routes > 0 {
        let routes = counted(status.rejected.routes, "route");
        details.push(("rejected", format!("{routes}; list them with: urlproxyctl rejected")));
    }
    details
}

fn held_text(held: &Held, now: f64) -> String {
    let until = held.ends_at.map(|at| format!(" until {}, in {}", time(at), span((at - now) as u64)));
    let until = until.unwrap_or_else(|| ", the hold must begin again".into());
    let records = counted(held.records, "record");
    format!("removal of {records} held back{until}; accept it with: urlproxyctl accept-withdrawal")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
