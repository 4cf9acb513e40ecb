//! webservicemonitor's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::environment::VariableName;
use super::manifest_scanner::ManifestGlob;
use super::start_command::{DEFAULT, StartCommand};
use crate::daemon::{CommonOptions, ProjectOptions, RedisOptions, parse_duration};
use crate::proxy_list::ListUrl;
use crate::tenant::SafeWord;

const HELP: &str = "\
Each round reads all manifests, runs qstat, fetches the list of the first active proxy that has one, and restarts each tool
with a web service for this grid that has no job, has a job in error state, or has a job that has run for --grace without
being on the list. The job is named <web type>-<tool> and owned by <project>.<tool>.

A round is suspended, restarts nothing and logs an error, if qstat or the list fails, if the proxy has not loaded its routes
yet (503), if its list is older than --max-list-age or empty, or if either has lost more than half of 20 or more tools; such
a loss is accepted when three more rounds show the same. Touching --accept-file lets one round through.

--start-command is split at white space, without a shell; then {tool}, {user}, {release} and {type} are replaced in its words.
The word {begin} marks the tool's own command: a start that fails before it does not count as a restart. The command's
environment is PATH, LANG, HOME, USER, LOGNAME, SHELL and the variables in --start-environment.

Exit status: 0 after SIGTERM or SIGINT, and after --once; 1 if the round of --once was suspended, or if it cannot start; 64
on usage errors.

    webservicemonitor --list-url http://HOST:8081/list --distribution bookworm --dry-run
    webservicemonitor --list-url http://HOST:8081/list --distribution bookworm --metrics-listen 127.0.0.1:9284";

/// webservicemonitor's options.
#[derive(Debug, Parser)]
#[command(
    name = "webservicemonitor",
    version,
    about = "Restarts web services on the grid that should run but do not",
    mut_arg("redis", |redis| redis.help(RedisOptions::help("For --state redis", RedisOptions::DEFAULT))),
    after_help = HELP
)]
pub struct Options {
    /// Manifests of the tools; the star is the tool's name
    #[arg(long, value_name = "PATTERN", default_value = "/data/project/*/service.manifest", value_parser = ManifestGlob::parse)]
    pub(super) manifests: ManifestGlob,
    /// URL of the proxy's list of tools; HOST stands for each active proxy
    #[arg(long, value_name = "URL", value_parser = ListUrl::parse)]
    pub(super) list_url: ListUrl,
    /// Active proxies, one a line; the first valid list counts
    #[arg(long, value_name = "FILE", default_value = "/etc/active-proxy")]
    pub(super) active_proxy_file: PathBuf,
    /// Command that lists the grid's jobs; run without a shell, with TZ=UTC
    #[arg(long, value_name = "COMMAND", default_value = "qstat -u * -xml", value_parser = parse_words)]
    pub(super) qstat: Words,
    /// Release of this grid; manifests with another release are skipped [default: any]
    #[arg(long, value_name = "NAME", value_parser = parse_word)]
    pub(super) distribution: Option<SafeWord>,
    /// Release of manifests without one
    #[arg(long, value_name = "NAME", value_parser = parse_word)]
    pub(super) default_release: Option<SafeWord>,
    /// Time between the starts of two rounds
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) interval: Duration,
    /// Time for a new job to be on the list, and for a deleted job to end
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = parse_duration)]
    pub(super) grace: Duration,
    /// Most restarts of one tool within --restart-window
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) max_restarts: u32,
    /// How long a restart counts
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(super) restart_window: Duration,
    /// Most restarts of all tools in one round
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) max_starts: u32,
    /// Most restarts at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) parallel: u32,
    /// Command that restarts a tool: words with {tool}, {user}, {release}, {type} and {begin}
    #[arg(long, value_name = "COMMAND", default_value = DEFAULT, value_parser = StartCommand::parse)]
    pub(super) start_command: StartCommand,
    /// More variables that the start command inherits
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = VariableName::parse)]
    pub(super) start_environment: Vec<VariableName>,
    /// Time before a start command is killed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) start_timeout: Duration,
    /// Time before qstat is killed and counts as failed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(super) qstat_timeout: Duration,
    /// Time before a request to a proxy counts as failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) list_timeout: Duration,
    /// Greatest age of a list [default: three times --interval, 30s at least]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) max_list_age: Option<Duration>,
    /// Restart history: a file, or "redis" to keep it in --redis
    #[arg(long, value_name = "FILE", default_value = "/var/lib/webservicemonitor/state.json")]
    pub(super) state: PathBuf,
    /// Touching this file lets one suspended round through
    #[arg(long, value_name = "FILE", default_value = "/run/urlproxy/webservicemonitor.accept")]
    pub(super) accept_file: PathBuf,
    #[command(flatten)]
    pub(super) project: ProjectOptions,
    /// Run one round, for cron
    #[arg(long)]
    pub(super) once: bool,
    /// Print the facts and decisions of one round, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) common: CommonOptions,
}

/// A program and its arguments. A type of its own: clap takes a `Vec` for a repeatable option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(pub Vec<String>);

fn parse_words(text: &str) -> Result<Words, String> {
    // Quotes as for a shell are allowed around words.
    let words: Vec<String> = text.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
    match words.first() {
        Some(program) if !program.is_empty() => Ok(Words(words)),
        _ => Err(format!("invalid command {text:?}, expected e.g. \"qstat -u * -xml\"")),
    }
}

fn parse_word(text: &str) -> Result<SafeWord, String> {
    SafeWord::try_new(text).ok_or_else(|| format!("invalid release {text:?}, expected e.g. \"bookworm\""))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn commands_split_into_words() {
        let words = parse_words(" qstat  -u '*' -xml ").unwrap().0;
        assert_eq!(words, ["qstat", "-u", "*", "-xml"]);
        for text in ["", " ", "''"] {
            assert!(parse_words(text).is_err_and(|error| error.contains("expected e.g.")), "{text:?}");
        }
    }

    #[test]
    fn patterns_have_one_wildcard() {
        let home = ManifestGlob::parse("/data/project/*/service.manifest").unwrap().home("hello");
        assert_eq!(home, PathBuf::from("/data/project/hello"));
        for text in ["", "x/*/y", "/x/y", "/x/*/", "/x/*/y/z", "/x*/*/y", "/x/*/*/y", "/x/*/*.manifest", "/x/?/y"] {
            assert!(ManifestGlob::parse(text).is_err_and(|error| error.contains("expected e.g.")), "{text:?}");
        }
    }
}
