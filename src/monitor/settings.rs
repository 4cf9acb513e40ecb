//! What webservicemonitor goes by.

use std::path::PathBuf;
use std::time::Duration;

use super::account::SystemAccounts;
use super::environment::VariableName;
use super::listing::ListUrl;
use super::manifest::Word;
use super::options::Options;
use super::survey::Surveyor;
use super::template::StartCommand;
use crate::daemon::{ProjectError, RedisOptionsError};
use crate::redis_client::RedisUrl;

/// Everything that a command line says.
pub struct Settings {
    /// How tools are found.
    pub surveyor: Surveyor<SystemAccounts>,
    /// Whom to ask what is registered, where the proxies are written, and how long one may take.
    pub list: (ListUrl, PathBuf, Duration),
    /// How long ago a list may have been known to be true.
    pub max_list_age: Duration,
    /// What tells of the grid's jobs, and how long it may take.
    pub qstat: (Vec<String>, Duration),
    /// This grid's release.
    pub distribution: Option<Word>,
    /// What restarts a tool, and how long it may take.
    pub start: (StartCommand, Duration),
    /// What that is given of the monitor's environment, beside what every program is.
    pub start_environment: Vec<VariableName>,
    /// How often, and how many.
    pub pace: Pace,
    /// Where the memory is.
    pub state: StateAt,
    /// The operator's file.
    pub accept_file: PathBuf,
    /// How long it runs.
    pub mode: Mode,
}

/// So many rounds a list may have been out of step ...
const LIST_INTERVALS: u32 = 3;
/// ... or so long, when rounds are short.
const SHORTEST_LIST_AGE: Duration = Duration::from_secs(30);

/// How often, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From round to round.
    pub interval: Duration,
    /// For a job to register.
    pub grace: Duration,
    /// Of one tool within the window.
    pub max_restarts: usize,
    /// For how long a restart counts.
    pub window: Duration,
    /// In one round.
    pub max_starts: usize,
    /// At a time.
    pub parallel: usize,
}

/// Where the memory is.
pub enum StateAt {
    /// In a file.
    File(PathBuf),
    /// In Redis.
    Redis(Box<RedisUrl>),
}

/// How long it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is told to end.
    Daemon,
    /// One round.
    Once,
    /// One round that changes nothing.
    DryRun,
}

/// What is wrong with a command line whose values are right one by one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No project.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// Nothing would stand for it.
    #[error("--start-command {0:?} has {{release}} in it, which takes a --distribution or a --default-release")]
    NoRelease(String),
    /// No URL of a Redis.
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
}

impl Options {
    /// Resolves what was written, once.
    ///
    /// # Errors
    /// Which of the values, or of the files that they name, is wrong.
    pub(super) fn into_settings(self) -> Result<Settings, SettingsError> {
        let project = self.project.resolve()?;
        if self.start_command.needs_release() && self.distribution.is_none() && self.default_release.is_none() {
            return Err(SettingsError::NoRelease(self.start_command.to_string()));
        }
        let state = if self.state.as_os_str() == "redis" {
            StateAt::Redis(Box::new(self.common.redis.to_url()?))
        } else {
            StateAt::File(self.state)
        };
        let count = |number: u32| number as usize;
        Ok(Settings {
            surveyor: Surveyor {
                places: self.manifests,
                project,
                distribution: self.distribution.clone(),
                default_release: self.default_release,
                accounts: SystemAccounts,
            },
            list: (self.list_url, self.active_proxy_file, self.list_timeout),
            max_list_age: self.max_list_age.unwrap_or((self.interval * LIST_INTERVALS).max(SHORTEST_LIST_AGE)),
            qstat: (self.qstat.0, self.qstat_timeout),
            distribution: self.distribution,
            start: (self.start_command, self.start_timeout),
            start_environment: self.start_environment,
            pace: Pace {
                interval: self.interval,
                grace: self.grace,
                max_restarts: count(self.max_restarts),
                window: self.restart_window,
                max_starts: count(self.max_starts),
                parallel: count(self.parallel),
            },
            state,
            accept_file: self.accept_file,
            mode: match (self.dry_run, self.once) {
                (true, _) => Mode::DryRun,
                (false, true) => Mode::Once,
                (false, false) => Mode::Daemon,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let always = ["webservicemonitor", "--list-url", "http://HOST:8081/list"];
        let options = Options::try_parse_from(always.iter().chain(args)).map_err(|error| error.to_string())?;
        options.into_settings().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_right_is_taken() {
        let taken = settings(&["--project", "tools", "--distribution", "bookworm", "--state", "redis"]).unwrap();
        assert_eq!(taken.mode, Mode::Daemon);
        assert!(matches!(taken.state, StateAt::Redis(_)));
        assert_eq!(taken.qstat.0, ["qstat", "-u", "*", "-xml"]);
        assert_eq!(taken.max_list_age, Duration::from_secs(180));
        let args = ["--project", "tools", "--default-release", "bookworm", "--interval", "1s"];
        let more = ["--start-environment", "SGE_ROOT,SGE_CELL", "--start-environment", "KRB5CCNAME"];
        let taken = settings(&[&args[..], &more].concat()).unwrap();
        assert_eq!(taken.max_list_age, Duration::from_secs(30));
        let names: Vec<_> = taken.start_environment.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["SGE_ROOT", "SGE_CELL", "KRB5CCNAME"]);
        let taken = settings(&["--project", "tools", "--start-command", "x {tool}", "--once", "--dry-run"]).unwrap();
        assert_eq!(taken.mode, Mode::DryRun);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (args, words) in [
            (&["--project", "a.b"][..], "invalid project \"a.b\""),
            (&["--project-file", "/nowhere/project"], "while reading --project-file"),
            (&["--project", "tools"], "takes a --distribution"),
            (&["--project", "tools", "--distribution", "Book Worm"], "expected e.g. \"bookworm\""),
            (
                &["--project", "tools", "--distribution", "a", "--state", "redis", "--redis", "x"],
                "--redis: invalid URL",
            ),
            (&["--project", "tools", "--max-restarts", "0"], "--max-restarts"),
            (&["--project", "tools", "--start-environment", "URLPROXY_REDIS"], "never handed on"),
            (&["--project", "tools", "--max-list-age", "0s"], "--max-list-age"),
        ] {
            let error = settings(args).err().unwrap_or_default();
            assert!(error.contains(words), "{args:?}: {error}");
        }
    }
}
