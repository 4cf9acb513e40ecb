//! webservicemonitor's settings, resolved from the command line and the files that it names.

use std::path::PathBuf;
use std::time::Duration;

use super::environment::VariableName;
use super::manifest_scanner::ManifestScanner;
use super::options::Options;
use super::start_command::StartCommand;
use crate::daemon::{ProjectError, RedisOptionsError};
use crate::proxy_list::ListUrl;
use crate::redis_client::RedisUrl;
use crate::tenant::{SafeWord, SystemAccounts};

/// Resolved settings.
pub struct Settings {
    pub scanner: ManifestScanner<SystemAccounts>,
    /// The list's URL, the active-proxy file, and the timeout of one proxy.
    pub list: (ListUrl, PathBuf, Duration),
    /// Older lists are refused.
    pub max_list_age: Duration,
    /// The words of the qstat command, and its timeout.
    pub qstat: (Vec<String>, Duration),
    /// This grid's release.
    pub distribution: Option<SafeWord>,
    /// The command that restarts a tool, and its timeout.
    pub start: (StartCommand, Duration),
    /// Variables for the start command, beside those that every program inherits.
    pub start_environment: Vec<VariableName>,
    pub limits: RestartLimits,
    pub state: StateLocation,
    /// Touching this file lets a suspended round through.
    pub accept_file: PathBuf,
    pub mode: Mode,
}

/// The default of `--max-list-age`, in intervals ...
const LIST_INTERVALS: u32 = 3;
/// ... and its minimum.
const SHORTEST_LIST_AGE: Duration = Duration::from_secs(30);

/// When and how many tools are restarted.
#[derive(Clone, Copy, Debug)]
pub struct RestartLimits {
    /// The time between two rounds.
    pub interval: Duration,
    /// The time for a new job to register, and for a deleted one to end.
    pub grace: Duration,
    /// The most restarts of one tool within the window.
    pub max_restarts: usize,
    /// How long a restart counts.
    pub window: Duration,
    /// The most restarts in one round.
    pub max_starts: usize,
    /// The most restarts at a time.
    pub parallel: usize,
}

/// Where the restart history is stored.
pub enum StateLocation {
    /// A file.
    File(PathBuf),
    /// Redis.
    Redis(Box<RedisUrl>),
}

/// How many rounds run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Rounds until shutdown.
    Daemon,
    /// One round.
    Once,
    /// One round that changes nothing.
    DryRun,
}

/// Why the options do not resolve.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The project is missing or invalid.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// `{release}` would have no value.
    #[error("--start-command {0:?} contains {{release}}, which requires --distribution or --default-release")]
    NoRelease(String),
    /// The Redis options are invalid.
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
}

impl Options {
    /// Resolves the options and the files that they name.
    pub(super) fn into_settings(self) -> Result<Settings, SettingsError> {
        let project = self.project.resolve()?;
        if self.start_command.needs_release() && self.distribution.is_none() && self.default_release.is_none() {
            return Err(SettingsError::NoRelease(self.start_command.to_string()));
        }
        let state = if self.state.as_os_str() == "redis" {
            StateLocation::Redis(Box::new(self.common.redis.to_url()?))
        } else {
            StateLocation::File(self.state)
        };
        let count = |number: u32| number as usize;
        Ok(Settings {
            scanner: ManifestScanner {
                glob: self.manifests,
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
            limits: RestartLimits {
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
    fn valid_options_resolve() {
        let resolved = settings(&["--project", "tools", "--distribution", "bookworm", "--state", "redis"]).unwrap();
        assert_eq!(resolved.mode, Mode::Daemon);
        assert!(matches!(resolved.state, StateLocation::Redis(_)));
        assert_eq!(resolved.qstat.0, ["qstat", "-u", "*", "-xml"]);
        assert_eq!(resolved.max_list_age, Duration::from_secs(180));
        let args = ["--project", "tools", "--default-release", "bookworm", "--interval", "1s"];
        let more = ["--start-environment", "SGE_ROOT,SGE_CELL", "--start-environment", "KRB5CCNAME"];
        let resolved = settings(&[&args[..], &more].concat()).unwrap();
        assert_eq!(resolved.max_list_age, Duration::from_secs(30));
        let names: Vec<_> = resolved.start_environment.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["SGE_ROOT", "SGE_CELL", "KRB5CCNAME"]);
        let resolved = settings(&["--project", "tools", "--start-command", "x {tool}", "--once", "--dry-run"]).unwrap();
        assert_eq!(resolved.mode, Mode::DryRun);
    }

    #[test]
    fn invalid_options_are_refused() {
        for (args, words) in [
            (&["--project", "a.b"][..], "invalid project \"a.b\""),
            (&["--project-file", "/nowhere/project"], "while reading --project-file"),
            (&["--project", "tools"], "requires --distribution"),
            (&["--project", "tools", "--distribution", "Book Worm"], "expected e.g. \"bookworm\""),
            (
                &["--project", "tools", "--distribution", "a", "--state", "redis", "--redis", "x"],
                "--redis: invalid URL",
            ),
            (&["--project", "tools", "--max-restarts", "0"], "--max-restarts"),
            (&["--project", "tools", "--start-environment", "URLPROXY_REDIS"], "never passed on"),
            (&["--project", "tools", "--max-list-age", "0s"], "--max-list-age"),
        ] {
            let error = settings(args).err().unwrap_or_default();
            assert!(error.contains(words), "{args:?}: {error}");
        }
    }
}
