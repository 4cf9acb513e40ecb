//! `top`: the busiest tools, live. In a pipe, one table per interval.

mod screen;
mod state;
mod view;

use std::io::IsTerminal;

use tokio::time::{MissedTickBehavior, interval};

use crate::ctl::admin_client::{AdminClient, AdminError};
use crate::ctl::api::{Status, ToolItem, Tools};
use crate::ctl::console::Console;
use crate::ctl::options::TopOptions;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::text_table::{Cell, TextTable};
use crate::escape::escaped;
use crate::text::count;

/// The columns, as in [`row`].
const HEADINGS: [&str; 7] = ["TOOL", "REQ/S", "ERRORS", "MEAN MS", "REQUESTS", "BACKENDS", "BACKEND"];

/// What one round of requests found.
#[derive(Debug)]
struct Sample {
    status: Status,
    tools: Tools,
    /// As received.
    value: serde_json::Value,
}

/// Shows tools until the program is ended, or `count` tables.
pub async fn run(admin: &AdminClient, console: &mut Console, options: TopOptions) -> Result<Answer, CtlError> {
    let is_live = !console.is_json && options.count.is_none() && std::io::stdout().is_terminal();
    if is_live && std::io::stdin().is_terminal() {
        screen::run(admin, &options).await?;
        return Ok(Answer::Positive);
    }
    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        ticks.tick().await;
        let sample = ask(admin, options.sort.as_str(), &options.search, options.limit).await?;
        print(console, &sample)?;
        console.flush()?;
        left -= 1;
    }
    Ok(Answer::Positive)
}

async fn ask(admin: &AdminClient, sort: &str, search: &str, limit: u16) -> Result<Sample, AdminError> {
    let limit = limit.to_string();
    let mut parameters = vec![("sort", sort), ("limit", &limit)];
    if !search.is_empty() {
        parameters.push(("search", search));
    }
    let path = "api/tools";
    let (status, value) = tokio::try_join!(admin.get_as("api/status", &[]), admin.get(path, &parameters))?;
    Ok(Sample { status, tools: admin.read(path, value.clone())?, value })
}

fn print(console: &mut Console, sample: &Sample) -> Result<(), CtlError> {
    if console.is_json {
        console.json_line(&sample.value)?;
        return Ok(());
    }
    console.line(escaped(&sample.status.summary.text))?;
    console.table(&text_table(&sample.tools))?;
    console.line("")?;
    Ok(())
}

/// The tools as a table.
pub fn text_table(tools: &Tools) -> TextTable {
    let mut table = TextTable::new(&HEADINGS);
    for tool in &tools.items {
        let row = row(tool);
        let [name, rate, errors, latency, requests, backends, backend] = row;
        let numbers = [rate, errors, latency, requests, backends].map(Cell::number);
        table.add([Cell::text(name)].into_iter().chain(numbers).chain([Cell::text(backend)]));
    }
    table
}

/// The cells of a tool: name, requests per second, share of errors, mean latency, requests, backends, first backend.
fn row(tool: &ToolItem) -> [String; 7] {
    let requests = tool.requests.iter().fold(0, |sum: u64, number| sum.saturating_add(*number));
    let rate = tool.rate.map_or("-".into(), |rate| format!("{rate:.1}"));
    let errors = match (tool.error_rate, tool.rate) {
        (Some(errors), Some(rate)) if rate > 0.0 => format!("{:.1} %", errors * 100.0 / rate),
        _ => "-".into(),
    };
    let latency = tool.mean_milliseconds.map_or("-".into(), |mean| count(mean.round() as u64));
    let backends = match tool.unavailable {
        0 => count(tool.backends),
        unavailable => format!("{}, {unavailable} down", count(tool.backends)),
    };
    [tool.name.clone(), rate, errors, latency, count(requests), backends, tool.backend.clone().unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_numbers_are_shown() {
        let tool = serde_json::json!({
            "name": "busy", "requests": [u64::MAX, 1, 0, 0, 0], "rate": 1e-320, "error_rate": 1e308, "mean_milliseconds": -1,
        });
        let row = row(&serde_json::from_value(tool).unwrap());
        assert_eq!(row[1..5], ["0.0", "inf %", "0", "18,446,744,073,709,551,615"]);
    }
}
