//! Runs faults concurrently, within the machine's capacity, and prints their figures.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitCode, exit};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::report::{Report, figure, table};

/// Faults that may run at once: most of them mostly wait.
const SLOTS: usize = 5;
/// A fault with this many slots runs alone.
pub const ALONE: usize = SLOTS;
/// Time limit of the whole run.
const LIMIT: Duration = Duration::from_secs(14 * 60);

/// An entry of the list of faults.
#[derive(Clone, Copy)]
pub struct Fault {
    name: &'static str,
    run: fn() -> Report,
    slots: usize,
}

impl Fault {
    /// `path` is that of the function, with a leading `::`.
    pub const fn new(path: &'static str, run: fn() -> Report) -> Self {
        Self { name: path.split_at(2).1, run, slots: 1 }
    }

    pub const fn slots(self, slots: usize) -> Self {
        Self { slots, ..self }
    }
}

/// The supported part of the standard test harness's command line.
#[derive(Default)]
pub struct Arguments {
    filters: Vec<String>,
    is_exact: bool,
    is_list: bool,
}

impl Arguments {
    pub fn parse() -> Self {
        let mut arguments = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => arguments.is_exact = true,
                "--list" => arguments.is_list = true,
                "--test-threads" | "--color" | "--format" | "--skip" => _ = words.next(),
                option if option.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    fn wants(&self, fault: &Fault) -> bool {
        let matches = |filter: &String| if self.is_exact { fault.name == filter } else { fault.name.contains(filter) };
        self.filters.is_empty() || self.filters.iter().any(matches)
    }
}

/// A finished fault.
struct Row {
    fault: Fault,
    report: Report,
    took: Duration,
}

pub fn run(faults: &[Fault], arguments: &Arguments) -> ExitCode {
    let mut queue: VecDeque<&Fault> = faults.iter().filter(|fault| arguments.wants(fault)).collect();
    if arguments.is_list {
        queue.iter().for_each(|fault| println!("{}: test", fault.name));
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let (sender, receiver) = channel();
    let mut running: Vec<&'static str> = Vec::new();
    let mut free = SLOTS;
    let mut rows = Vec::new();
    loop {
        while let Some(at) = queue.iter().position(|fault| fault.slots <= free) {
            let Some(&fault) = queue.remove(at) else { break };
            free -= fault.slots;
            running.push(fault.name);
            let sender = sender.clone();
            let life = move || {
                let begun = Instant::now();
                let report = catch_unwind(AssertUnwindSafe(fault.run))
                    .unwrap_or_else(|panic| Report::failed(panic_message(&*panic)));
                let _ = sender.send(Row { fault, report, took: begun.elapsed() });
            };
            thread::Builder::new().name(fault.name.to_owned()).spawn(life).expect("a thread");
        }
        if running.is_empty() {
            break;
        }
        match receiver.recv_timeout(LIMIT.saturating_sub(begun.elapsed())) {
            Ok(row) => {
                free += row.fault.slots;
                running.retain(|name| *name != row.fault.name);
                println!("fault {} ... {}", row.fault.name, verdict(&row.report));
                row.report.problem_lines().iter().for_each(|line| println!("    {line}"));
                rows.push(row);
            }
            Err(RecvTimeoutError::Timeout) => {
                println!("still running after {LIMIT:?}: {}", running.join(", "));
                exit(1);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    rows.sort_by_key(|row| faults.iter().position(|fault| fault.name == row.fault.name));
    conclude(&rows, begun.elapsed())
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "panicked".to_owned())
}

fn verdict(report: &Report) -> String {
    match &report.skipped {
        Some(why) => format!("skipped: {why}"),
        None if report.is_good() => "ok".to_owned(),
        None => "FAILED".to_owned(),
    }
}

/// Prints the table, to the terminal and to a file that `make test` shows at its end.
fn conclude(rows: &[Row], took: Duration) -> ExitCode {
    if rows.is_empty() {
        return ExitCode::SUCCESS;
    }
    let head =
        ["fault", "requests", "failed", "in killed worker", "to recover", "slowest", "log lines", "took", "result"];
    let cells: Vec<_> = rows.iter().map(line).collect();
    let bad = rows.iter().filter(|row| !row.report.is_good()).count();
    let failed: usize = rows.iter().map(|row| row.report.count.failures.len()).sum();
    let requests: u64 = rows.iter().map(|row| row.report.count.requests).sum();
    let text = format!(
        "\n{}\n{} faults in {}: {bad} failed; {requests} requests: {failed} failed\n",
        table(&head, &cells),
        rows.len(),
        figure(took)
    );
    println!("{text}");
    if let Err(error) = std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/faults.txt"), text) {
        println!("cannot save this table: {error}");
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(row: &Row) -> Vec<String> {
    let Report { count, recovered, lines, note, .. } = &row.report;
    let verdict = verdict(&row.report);
    vec![
        row.fault.name.to_owned(),
        count.requests.to_string(),
        count.failures.len().to_string(),
        count.killed.to_string(),
        recovered.map(figure).unwrap_or_default(),
        figure(count.slowest),
        lines.to_string(),
        figure(row.took),
        if note.is_empty() { verdict } else { format!("{verdict}; {note}") },
    ]
}
