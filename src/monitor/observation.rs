//! The facts of a round, and the decisions that follow.

use std::collections::HashSet;
use std::fmt::Write;

use super::decision::{Constraints, Decision, Facts, decide};
use super::manifest_scanner::Tool;
use super::restart_history::RestartHistory;
use super::settings::RestartLimits;
use super::suspend_reason::Counts;
use crate::grid::{Jobs, Presence};
use crate::tenant::Account;

/// The facts of a round.
#[derive(Debug, Default)]
pub struct Observation {
    /// Tools with a manifest.
    pub tools: Vec<Tool>,
    /// The grid's jobs; `None` if unknown.
    pub jobs: Option<Jobs>,
    /// Tools on the proxy's list; `None` if unknown.
    pub listed: Option<HashSet<String>>,
}

/// The facts of one tool, and the decision on it.
#[derive(Debug)]
pub struct Assessment<'a> {
    pub tool: &'a Tool,
    /// The state of its job; `None` if unknown, or if no web service is wanted.
    pub job: Option<Presence>,
    /// Whether the proxy lists it; `None` if unknown, or if no web service is wanted.
    pub is_registered: Option<bool>,
    /// The number of restarts within the window.
    pub starts: usize,
    /// The tool's place in the order of restarts.
    pub order: usize,
    pub decision: Decision,
}

impl Observation {
    /// The counts of a complete observation; `None` if something is unknown.
    pub fn counts(&self) -> Option<Counts> {
        let (listed, jobs) = (self.listed.as_ref()?, self.jobs.as_ref()?);
        let wanted: Vec<_> = self.tools.iter().filter_map(|tool| Some((tool, wanted_job(tool)?))).collect();
        let runs =
            |(_, (account, job)): &&(&Tool, (&Account, String))| jobs.find(&account.name, job) != Presence::Absent;
        Some(Counts {
            all_listed: listed.len(),
            listed: wanted.iter().filter(|(tool, _)| listed.contains(&tool.name)).count(),
            jobs: wanted.iter().filter(runs).count(),
            wanted: wanted.len(),
        })
    }

    /// Updates the history: the tools that wait for a restart, and the jobs that are being deleted.
    pub fn update_history(&self, history: &mut RestartHistory, limits: &RestartLimits, now: u64) {
        let assessments: Vec<Assessment<'_>> = self.tools.iter().map(|tool| self.facts_of(tool, history)).collect();
        let is_deleted = |assessment: &&Assessment<'_>| assessment.job == Some(Presence::Deleting);
        history.set_deleting(assessments.iter().filter(is_deleted).map(|assessment| &*assessment.tool.name), now);
        let free = Constraints::none(limits.grace);
        let should = |assessment: &&Assessment<'_>| decide(assessment.facts(history, now), free).cause().is_some();
        let waiting: Vec<&str> = assessments.iter().filter(should).map(|assessment| &*assessment.tool.name).collect();
        history.set_waiting(waiting.into_iter(), now);
    }

    /// Decides on each tool. If not all can be restarted, those that have waited longest come first.
    pub fn decide(
        &self,
        history: &RestartHistory,
        limits: &RestartLimits,
        is_suspended: bool,
        now: u64,
    ) -> Vec<Assessment<'_>> {
        let mut assessments: Vec<Assessment<'_>> = self.tools.iter().map(|tool| self.facts_of(tool, history)).collect();
        let mut order: Vec<&mut Assessment<'_>> = assessments.iter_mut().collect();
        order.sort_by_key(|assessment| history.priority_of(&assessment.tool.name));
        let mut remaining = limits.max_starts;
        for (order, assessment) in order.into_iter().enumerate() {
            assessment.order = order;
            if assessment.tool.manifest.is_err() {
                continue;
            }
            let is_backing_off = history.is_backing_off(&assessment.tool.name, now, limits.interval, limits.window);
            let is_throttled = assessment.starts >= limits.max_restarts;
            let constraints = Constraints {
                is_suspended,
                is_throttled,
                is_backing_off,
                is_round_full: remaining == 0,
                ..Constraints::none(limits.grace)
            };
            assessment.decision = decide(assessment.facts(history, now), constraints);
            if matches!(assessment.decision, Decision::Restart(_)) {
                remaining -= 1;
            }
        }
        assessments
    }

    fn facts_of<'a>(&self, tool: &'a Tool, history: &RestartHistory) -> Assessment<'a> {
        let wanted = wanted_job(tool);
        let job = wanted.as_ref().zip(self.jobs.as_ref()).map(|((account, job), jobs)| jobs.find(&account.name, job));
        let is_registered = wanted.and(self.listed.as_ref()).map(|listed| listed.contains(&tool.name));
        let starts = history.starts_of(&tool.name);
        Assessment { tool, job, is_registered, starts, order: 0, decision: Decision::Skipped }
    }
}

impl Assessment<'_> {
    fn facts(&self, history: &RestartHistory, now: u64) -> Option<Facts> {
        let deleting_for = history.deleting_for(&self.tool.name, now);
        let (job, is_registered) = self.job.zip(self.is_registered)?;
        Some(Facts { job, is_registered, deleting_for })
    }
}

/// The owner and name of a tool's job; `None` if no web service is wanted.
fn wanted_job(tool: &Tool) -> Option<(&Account, String)> {
    let (manifest, account) = (tool.manifest.as_ref().ok()?, tool.account.as_ref()?);
    Some((account, format!("{}-{}", manifest.web.as_str(), tool.name)))
}

/// The table that `--dry-run` prints.
pub fn table(assessments: &[Assessment<'_>]) -> String {
    let head = ["tool", "type", "job", "listed", "restarts", "decision", "why"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(assessments.iter().map(row)).collect();
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

fn row(assessment: &Assessment<'_>) -> [String; 7] {
    let unknown = || "?".to_owned();
    let (web, why) = match &assessment.tool.manifest {
        Ok(manifest) => {
            (manifest.web.as_str(), assessment.decision.cause().map_or(String::new(), |cause| cause.to_string()))
        }
        Err(skip) => ("-", skip.to_string()),
    };
    let is_wanted = assessment.tool.manifest.is_ok();
    let job = match assessment.job {
        Some(Presence::Absent) => "none".to_owned(),
        Some(Presence::Failed) => "error".to_owned(),
        Some(Presence::Deleting) => "deleting".to_owned(),
        Some(Presence::Pending) => "waits".to_owned(),
        Some(Presence::Running(Some(age))) => format!("runs {}", short(age.as_secs())),
        Some(Presence::Running(None)) => "runs".to_owned(),
        None if is_wanted => unknown(),
        None => "-".to_owned(),
    };
    let listed = match assessment.is_registered {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None if is_wanted => unknown(),
        None => "-".to_owned(),
    };
    let name = assessment.tool.name.clone();
    [name, web.to_owned(), job, listed, assessment.starts.to_string(), assessment.decision.name().to_owned(), why]
}

fn short(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
