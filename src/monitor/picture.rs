//! Everything that a round knows, and what it decides of it.

use std::collections::HashSet;
use std::fmt::Write;

use super::account::Account;
use super::brake::Counts;
use super::decision::{Decision, Facts, Limits, decide};
use super::jobs::{Jobs, Presence};
use super::memory::Memory;
use super::settings::Pace;
use super::survey::Tool;

/// What a round knows.
#[derive(Debug, Default)]
pub struct Picture {
    /// Tools that have a manifest.
    pub tools: Vec<Tool>,
    /// The grid's jobs; `None` is not known.
    pub jobs: Option<Jobs>,
    /// Tools on the proxy's list; `None` is not known.
    pub listed: Option<HashSet<String>>,
}

/// One line of what was decided.
#[derive(Debug)]
pub struct Line<'a> {
    /// Which tool.
    pub tool: &'a Tool,
    /// What is known of it, if it is wanted.
    pub job: Option<Presence>,
    /// The same.
    pub is_registered: Option<bool>,
    /// Restarts that count.
    pub starts: usize,
    /// Its place in the order in which tools are restarted.
    pub turn: usize,
    /// What is done.
    pub decision: Decision,
}

impl Picture {
    /// How much there is, when all is known.
    pub fn counts(&self) -> Option<Counts> {
        let (listed, jobs) = (self.listed.as_ref()?, self.jobs.as_ref()?);
        let wanted: Vec<_> = self.tools.iter().filter_map(|tool| Some((tool, wanted(tool)?))).collect();
        let runs =
            |(_, (account, job)): &&(&Tool, (&Account, String))| jobs.find(&account.name, job) != Presence::Absent;
        Some(Counts {
            all_listed: listed.len(),
            listed: wanted.iter().filter(|(tool, _)| listed.contains(&tool.name)).count(),
            jobs: wanted.iter().filter(runs).count(),
            wanted: wanted.len(),
        })
    }

    /// Has the memory know which tools wait for a restart, and whose jobs are being deleted.
    pub fn note(&self, memory: &mut Memory, pace: &Pace, now: u64) {
        let lines: Vec<Line<'_>> = self.tools.iter().map(|tool| self.look_up(tool, memory)).collect();
        let is_deleted = |line: &&Line<'_>| line.job == Some(Presence::Deleting);
        memory.note_deleting(lines.iter().filter(is_deleted).map(|line| &*line.tool.name), now);
        let free = Limits::none(pace.grace);
        let should = |line: &&Line<'_>| decide(line.facts(memory, now), free).cause().is_some();
        let waiting: Vec<&str> = lines.iter().filter(should).map(|line| &*line.tool.name).collect();
        memory.note_waiting(waiting.into_iter(), now);
    }

    /// Decides of each tool. Where not all can be restarted, those come first that have waited longest.
    pub fn decide(&self, memory: &Memory, pace: &Pace, is_braked: bool, now: u64) -> Vec<Line<'_>> {
        let mut lines: Vec<Line<'_>> = self.tools.iter().map(|tool| self.look_up(tool, memory)).collect();
        let mut order: Vec<&mut Line<'_>> = lines.iter_mut().collect();
        order.sort_by_key(|line| memory.turn_of(&line.tool.name));
        let mut room = pace.max_starts;
        for (turn, line) in order.into_iter().enumerate() {
            line.turn = turn;
            if line.tool.manifest.is_err() {
                continue;
            }
            let is_backing_off = memory.is_backing_off(&line.tool.name, now, pace.interval, pace.window);
            let is_spent = line.starts >= pace.max_restarts;
            let limits = Limits { is_braked, is_spent, is_backing_off, is_full: room == 0, ..Limits::none(pace.grace) };
            line.decision = decide(line.facts(memory, now), limits);
            if matches!(line.decision, Decision::Restart(_)) {
                room -= 1;
            }
        }
        lines
    }

    fn look_up<'a>(&self, tool: &'a Tool, memory: &Memory) -> Line<'a> {
        let wanted = wanted(tool);
        let job = wanted.as_ref().zip(self.jobs.as_ref()).map(|((account, job), jobs)| jobs.find(&account.name, job));
        let is_registered = wanted.and(self.listed.as_ref()).map(|listed| listed.contains(&tool.name));
        let starts = memory.starts_of(&tool.name);
        Line { tool, job, is_registered, starts, turn: 0, decision: Decision::Skipped }
    }
}

impl Line<'_> {
    fn facts(&self, memory: &Memory, now: u64) -> Option<Facts> {
        let deleting_for = memory.deleting_for(&self.tool.name, now);
        let (job, is_registered) = self.job.zip(self.is_registered)?;
        Some(Facts { job, is_registered, deleting_for })
    }
}

/// Whose job a tool's is, and what it is called; `None` if none is wanted.
fn wanted(tool: &Tool) -> Option<(&Account, String)> {
    let (manifest, account) = (tool.manifest.as_ref().ok()?, tool.account.as_ref()?);
    Some((account, format!("{}-{}", manifest.web.as_str(), tool.name)))
}

/// Columns for people.
pub fn table(lines: &[Line<'_>]) -> String {
    let head = ["tool", "type", "job", "listed", "restarts", "decision", "why"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(lines.iter().map(row)).collect();
    let mut widths = [0; 7];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn row(line: &Line<'_>) -> [String; 7] {
    let unknown = || "?".to_owned();
    let (web, why) = match &line.tool.manifest {
        Ok(manifest) => (manifest.web.as_str(), line.decision.cause().map_or(String::new(), |cause| cause.to_string())),
        Err(skip) => ("-", skip.to_string()),
    };
    let is_wanted = line.tool.manifest.is_ok();
    let job = match line.job {
        Some(Presence::Absent) => "none".to_owned(),
        Some(Presence::Failed) => "error".to_owned(),
        Some(Presence::Deleting) => "is deleted".to_owned(),
        Some(Presence::Pending) => "waits".to_owned(),
        Some(Presence::Running(Some(age))) => format!("runs {}", short(age.as_secs())),
        Some(Presence::Running(None)) => "runs".to_owned(),
        None if is_wanted => unknown(),
        None => "-".to_owned(),
    };
    let listed = match line.is_registered {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None if is_wanted => unknown(),
        None => "-".to_owned(),
    };
    let name = line.tool.name.clone();
    [name, web.to_owned(), job, listed, line.starts.to_string(), line.decision.name().to_owned(), why]
}

fn short(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
