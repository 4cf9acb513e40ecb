//! A tool's web service on the grid: one job, by qsub, qstat and qdel.
//!
//! `submission` is qsub's command line, `explanation` reads why a job waits or failed.

mod explanation;
mod submission;

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::console::Wait;
use super::service::{Service, State, Tool};
use crate::grid::{Job, JobState, JobsError, parse_jobs};
use crate::subprocess::{CommandError, on_one_line, run};
use crate::web_type::SiteConfig;

pub use explanation::reason;
pub use submission::{SubmissionError, check_words};

/// The time for one run of a program of the grid.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(20);
/// The most of qstat's output: thousands of jobs of one tool.
const MAX_QSTAT_BYTES: usize = 16 * 1024 * 1024;
const MAX_QSUB_BYTES: usize = 64 * 1024;
/// A tool's own options for qsub. `-clear` discards them, but qsub reads them, and waits if the file is a FIFO.
const REQUEST_FILE: &str = ".sge_request";
/// A tool's own options for qstat, which no option discards. qstat finds the file by the account's home, not by HOME.
const QSTAT_FILE: &str = ".sge_qstat";
/// The time between two looks at the jobs.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long a job runs before the start counts as done: a server that cannot begin ends sooner.
const SETTLING_TIME: Duration = Duration::from_millis(1200);
/// How long a job that was just submitted may be missing.
const MISSING_TIME: Duration = Duration::from_secs(5);
/// The time between two questions why a job waits.
const EXPLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Why the grid does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// A program of the grid fails.
    #[error("{0}; if that goes on, ask an administrator")]
    Program(#[from] CommandError),
    /// qsub refuses the job, or hangs.
    #[error("{error}{hint}")]
    NotSubmitted {
        /// qsub's failure.
        error: CommandError,
        /// What may help.
        hint: String,
    },
    /// qsub succeeds, but has submitted nothing, or something else than one job.
    #[error("qsub prints {printed:?} instead of a job's number{hint}")]
    NoNumber {
        /// The end of its output.
        printed: String,
        /// What may help.
        hint: String,
    },
    /// Jobs may be hidden from qstat.
    #[error("qstat reads {0:?}, which may hide your jobs; remove that file, then run the command again")]
    QstatOptions(PathBuf),
    /// qstat's output is no list of jobs.
    #[error("{0}; if that goes on, ask an administrator")]
    Jobs(#[from] JobsError),
    /// The job cannot be described to qsub.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
    /// The job is still there.
    #[error(
        "job {job:?} is still being deleted after {after:?}; try again later, or ask an administrator to delete it with `qdel -f`"
    )]
    StillThere {
        /// The job's name.
        job: String,
        /// The wait.
        after: Duration,
    },
}

/// A job of the tool that is a web service.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its type.
    pub web: String,
    /// The state, not yet explained.
    pub state: JobState,
    number: Option<u64>,
    /// When it started, in Unix seconds.
    pub since: Option<u64>,
}

/// How the wait for a start ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Started {
    /// It runs.
    Running,
    /// It still waits.
    Pending(String),
    /// It is in error state.
    Failed(String),
    /// It ran, and is gone.
    Ended,
}

/// The jobs of one tool.
#[derive(Clone, Copy, Debug)]
pub struct GridEngine<'a> {
    tool: &'a Tool,
    site: &'a SiteConfig,
    /// A type that only the command line or the manifest knows.
    other_types: &'a [String],
    /// `--config`, if it was given.
    config: Option<&'a PathBuf>,
}

impl<'a> GridEngine<'a> {
    pub fn new(tool: &'a Tool, site: &'a SiteConfig, other_types: &'a [String], config: Option<&'a PathBuf>) -> Self {
        Self { tool, site, other_types, config }
    }

    /// The tool's web service, of whatever type; of several jobs the one that got furthest.
    ///
    /// # Errors
    /// qstat fails.
    pub async fn find(&self) -> Result<Option<Found>, GridError> {
        Ok(self.all().await?.into_iter().max_by_key(|found| found.state))
    }

    /// All jobs of the tool that are web services, and not finished.
    async fn all(&self) -> Result<Vec<Found>, GridError> {
        let own_options = self.tool.home.join(QSTAT_FILE);
        if own_options.symlink_metadata().is_ok() {
            return Err(GridError::QstatOptions(own_options));
        }
        let mut command = self.program("qstat");
        command.args(["-u", &self.tool.account, "-xml"]);
        let jobs = parse_jobs(&run(command, PROGRAM_TIMEOUT, MAX_QSTAT_BYTES).await?)?;
        Ok(jobs.into_iter().filter_map(|job| self.web_service(job)).collect())
    }

    fn web_service(&self, job: Job) -> Option<Found> {
        let web = job.name.strip_suffix(&self.tool.name)?.strip_suffix('-')?;
        let is_known = self.site.web_type(web).is_some() || self.other_types.iter().any(|name| name == web);
        let is_there = is_known && job.owner == self.tool.account && job.state != JobState::Finished;
        is_there.then(|| Found { web: web.to_owned(), state: job.state, number: job.number, since: job.since })
    }

    /// The state of a job, with the reason if the grid knows it.
    pub async fn state(&self, found: &Found) -> State {
        match found.state {
            JobState::Running => State::Running,
            JobState::Deleting => State::Stopping,
            JobState::Pending => State::Pending { reason: self.explain(found.number).await },
            JobState::Failed => State::Failed { reason: self.explain(found.number).await },
            JobState::Finished => State::Stopped,
        }
    }

    /// Why a job waits or failed; empty if the grid does not say.
    async fn explain(&self, number: Option<u64>) -> String {
        let Some(number) = number else { return String::new() };
        let mut command = self.program("qstat");
        command.args(["-explain", "E", "-j", &number.to_string()]);
        let output = run(command, PROGRAM_TIMEOUT, MAX_QSTAT_BYTES).await.unwrap_or_default();
        explanation::reason(&String::from_utf8_lossy(&output))
    }

    /// Submits a job. Returns its number.
    ///
    /// # Errors
    /// The job cannot be described, or qsub refuses it.
    pub async fn submit(&self, service: &Service) -> Result<u64, GridError> {
        let arguments = submission::arguments(self.tool, self.site, service, self.config)?;
        let mut command = self.program("qsub");
        command.args(arguments);
        let printed = run(command, PROGRAM_TIMEOUT, MAX_QSUB_BYTES).await.map_err(|error| {
            let hint = self.hint(matches!(error, CommandError::TimedOut { .. }));
            GridError::NotSubmitted { error, hint }
        })?;
        let number = std::str::from_utf8(&printed).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| GridError::NoNumber { printed: on_one_line(&printed), hint: self.hint(true) })
    }

    /// What may help when qsub fails.
    fn hint(&self, is_ambiguous: bool) -> String {
        let request = self.tool.home.join(REQUEST_FILE);
        let mut hint = String::new();
        if is_ambiguous {
            hint += "; `webservice status` shows whether the job was submitted";
        }
        if request.symlink_metadata().is_ok() {
            hint += &format!("; qsub reads {request:?}: check or remove that file");
        }
        hint
    }

    /// Waits until a job has run for a moment, at most for `time`.
    ///
    /// # Errors
    /// qstat fails to the end.
    pub async fn wait_until_running(&self, number: u64, time: Duration, wait: &mut Wait) -> Result<Started, GridError> {
        let begin = Instant::now();
        let (mut runs_since, mut explained_at, mut was_seen) = (None, None::<Instant>, false);
        let mut reason = String::new();
        loop {
            let found = wait.during(self.all()).await;
            let is_over = begin.elapsed() >= time;
            let found = match found {
                Ok(found) => found.into_iter().filter(|found| found.number == Some(number)),
                // The next attempt may succeed.
                Err(error) if is_over => return Err(error),
                Err(_) => {
                    wait.during(sleep(POLL_INTERVAL)).await;
                    continue;
                }
            };
            match found.max_by_key(|found| found.state) {
                Some(Found { state: JobState::Running, .. }) => {
                    was_seen = true;
                    wait.set_reason("");
                    let since = *runs_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= SETTLING_TIME {
                        return Ok(Started::Running);
                    }
                }
                Some(Found { state: JobState::Failed, number, .. }) => {
                    return Ok(Started::Failed(wait.during(self.explain(number)).await));
                }
                // Being deleted: somebody else stops it, or it has ended.
                Some(Found { state: JobState::Pending, number, .. }) => {
                    (was_seen, runs_since) = (true, None);
                    if is_over || explained_at.is_none_or(|at| at.elapsed() >= EXPLAIN_INTERVAL) {
                        reason = wait.during(self.explain(number)).await;
                        explained_at = Some(Instant::now());
                        wait.set_reason(if reason.is_empty() { "waiting for a host of the grid" } else { &reason });
                    }
                    if is_over {
                        return Ok(Started::Pending(reason));
                    }
                }
                Some(_) => was_seen = true,
                None if was_seen || begin.elapsed() >= MISSING_TIME => return Ok(Started::Ended),
                None => {}
            }
            if is_over && runs_since.is_none() {
                return Ok(if was_seen { Started::Pending(reason) } else { Started::Ended });
            }
            wait.during(sleep(POLL_INTERVAL)).await;
        }
    }

    /// Deletes all jobs that are web services of the tool, and waits until they are gone, so that their epilog has run.
    ///
    /// # Errors
    /// qdel or qstat fails to the end, or a job is still there after `time`.
    pub async fn delete(&self, time: Duration, wait: &mut Wait) -> Result<(), GridError> {
        let begin = Instant::now();
        loop {
            let is_over = begin.elapsed() >= time;
            let outcome = wait.during(self.delete_once()).await;
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(job)) if is_over => return Err(GridError::StillThere { job, after: time }),
                Err(error) if is_over => return Err(error),
                Ok(Some(_)) | Err(_) => wait.during(sleep(POLL_INTERVAL)).await,
            }
        }
    }

    /// Asks the grid to delete what is not yet being deleted. Returns the name of a job that is still there.
    async fn delete_once(&self) -> Result<Option<String>, GridError> {
        let jobs = self.all().await?;
        let mut names: Vec<String> = Vec::new();
        for job in &jobs {
            let name = format!("{}-{}", job.web, self.tool.name);
            if job.state != JobState::Deleting && !names.contains(&name) {
                names.push(name);
            }
        }
        for name in &names {
            let mut command = self.program("qdel");
            command.arg(name);
            if let Err(error) = run(command, PROGRAM_TIMEOUT, MAX_QSUB_BYTES).await {
                // It may have ended by itself.
                let is_gone = self.all().await?.iter().all(|job| format!("{}-{}", job.web, self.tool.name) != *name);
                if !is_gone {
                    return Err(error.into());
                }
            }
        }
        Ok(jobs.first().map(|job| format!("{}-{}", job.web, self.tool.name)))
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        // qstat prints local times. All read files of default options in the current directory.
        command.env("TZ", "UTC").current_dir("/");
        command
    }
}
