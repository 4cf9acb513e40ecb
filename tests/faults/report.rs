//! The result of a fault.

use std::fmt;
use std::time::Duration;

use crate::support::need::{MAY_SKIP, may_skip};
use crate::traffic::{Count, Failure};

/// The figures of one fault.
#[derive(Default)]
pub struct Report {
    pub count: Count,
    /// Time from a change in Redis after the fault until it is served for every tool.
    pub recovered: Option<Duration>,
    /// Number of the module's lines in the error log.
    pub lines: usize,
    /// Other measurements.
    pub note: String,
    /// Violated expectations, without failed requests.
    pub problems: Vec<String>,
    /// What this machine lacks for the fault.
    pub skipped: Option<String>,
}

impl Report {
    /// This machine lacks something: a failure, unless `URLPROXY_MAY_SKIP=faults` allows to skip.
    pub fn needs(what: impl fmt::Display) -> Self {
        if may_skip("faults") {
            return Self { skipped: Some(format!("needs {what}")), ..Self::default() };
        }
        Self::failed(format!("needs {what}; {MAY_SKIP}=faults skips it"))
    }

    pub fn failed(why: impl Into<String>) -> Self {
        Self { problems: vec![why.into()], ..Self::default() }
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Adds a problem unless the expectation holds.
    pub fn expect(mut self, holds: bool, otherwise: impl Into<String>) -> Self {
        if !holds {
            self.problems.push(otherwise.into());
        }
        self
    }

    pub fn is_good(&self) -> bool {
        self.count.failures.is_empty() && self.problems.is_empty()
    }

    /// Problems and failed requests, for output.
    pub fn problem_lines(&self) -> Vec<String> {
        const FIRST: usize = 10;
        let failures = &self.count.failures;
        let mut all = self.problems.clone();
        all.extend(failures.iter().take(FIRST).map(Failure::to_string));
        if failures.len() > FIRST {
            all.push(format!(
                "... and {} more failed requests, the last at {}",
                failures.len() - FIRST,
                failures[failures.len() - 1]
            ));
        }
        all
    }
}

/// Formats a time with few digits.
pub fn figure(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 9999.5 { format!("{ms:.0} ms") } else { format!("{:.0} s", ms / 1e3) }
}

/// Formats a table: first and last column left-aligned, all others right-aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells
            .enumerate()
            .map(|(column, cell)| match column {
                0 => format!("{cell:<0$}", widths[0]),
                last if last + 1 == head.len() => cell.to_owned(),
                other => format!("{cell:>0$}", widths[other]),
            })
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    text += &line(&mut widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}
