//! webservicemonitor's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::environment::VariableName;
use super::listing::ListUrl;
use super::manifest::Word;
use super::survey::Places;
use super::template::{DEFAULT, StartCommand};
use crate::daemon::{CommonOptions, ProjectOptions, RedisOptions, parse_duration};

const HELP: &str = "\
A round: every manifest is read, qstat and the first active proxy that has a list are asked, and a tool is restarted whose
web service is wanted here but does not run, is in error state, or has run for --grace without being on the list. Its job is
<web type>-<tool>, owned by <project>.<tool>.

Nothing at all is restarted, and that is an error in the log, when qstat or the list fails, when the proxy has loaded nothing
yet (503), when its list is older than --max-list-age or empty, and when either has fewer than half of what it had (20 at
least) until three more rounds have said the same. Touching --accept-file lets one round through.

--start-command is split at white space, without a shell; {tool}, {user}, {release} and {type} are put into its words then.
The word {begin} stands before the tool's own command: a start that does not come so far does not count as a restart. Its
environment is PATH, LANG, HOME, USER, LOGNAME, SHELL and what --start-environment names.

Exit status: 0 after SIGTERM or SIGINT, and after --once; 1 when --once restarted nothing because of the above, or when it
cannot start; 64 for a wrong command line.

    webservicemonitor --list-url http://HOST:8081/list --distribution bookworm --dry-run
    webservicemonitor --list-url http://HOST:8081/list --distribution bookworm --metrics-listen 127.0.0.1:9284";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "webservicemonitor",
    version,
    about = "Restarts the web services on the grid that should run and do not",
    mut_arg("redis", |redis| redis.help(RedisOptions::help("For --state redis", RedisOptions::DEFAULT))),
    after_help = HELP
)]
pub struct Options {
    /// Where tools say what they want
    #[arg(long, value_name = "PATTERN", default_value = "/data/project/*/service.manifest", value_parser = Places::parse)]
    pub(super) manifests: Places,
    /// Where the proxy lists its tools; HOST stands for each active proxy
    #[arg(long, value_name = "URL", value_parser = ListUrl::parse)]
    pub(super) list_url: ListUrl,
    /// The proxies to ask, one a line; the first that has a list is believed
    #[arg(long, value_name = "FILE", default_value = "/etc/active-proxy")]
    pub(super) active_proxy_file: PathBuf,
    /// How the grid tells of its jobs; run without a shell, with TZ=UTC
    #[arg(long, value_name = "COMMAND", default_value = "qstat -u * -xml", value_parser = parse_words)]
    pub(super) qstat: Words,
    /// Release of this grid: manifests that name another are another monitor's
    #[arg(long, value_name = "NAME", value_parser = parse_word)]
    pub(super) distribution: Option<Word>,
    /// Release of manifests that name none
    #[arg(long, value_name = "NAME", value_parser = parse_word)]
    pub(super) default_release: Option<Word>,
    /// From the beginning of a round to that of the next
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) interval: Duration,
    /// How long a running job may take to be on the list
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = parse_duration)]
    pub(super) grace: Duration,
    /// How often one tool is restarted within --restart-window
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) max_restarts: u32,
    /// For how long a restart counts
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(super) restart_window: Duration,
    /// How many tools are restarted in one round
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) max_starts: u32,
    /// How many at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) parallel: u32,
    /// What restarts a tool: words with {tool}, {user}, {release} and {type}, and {begin}
    #[arg(long, value_name = "COMMAND", default_value = DEFAULT, value_parser = StartCommand::parse)]
    pub(super) start_command: StartCommand,
    /// Variables of its own environment that the start command is given too, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = VariableName::parse)]
    pub(super) start_environment: Vec<VariableName>,
    /// How long that may take before it is killed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) start_timeout: Duration,
    /// How long qstat may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(super) qstat_timeout: Duration,
    /// How long a proxy may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) list_timeout: Duration,
    /// How long ago a list may have been known to be true [default: three times --interval, 30s at least]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) max_list_age: Option<Duration>,
    /// Where the history of restarts is kept: a file, or "redis" for the one of --redis
    #[arg(long, value_name = "FILE|redis", default_value = "/var/lib/webservicemonitor/state.json")]
    pub(super) state: PathBuf,
    /// Touching this file lets a round through that restarts nothing because its facts are doubted
    #[arg(long, value_name = "FILE", default_value = "/run/urlproxy/webservicemonitor.accept")]
    pub(super) accept_file: PathBuf,
    #[command(flatten)]
    pub(super) project: ProjectOptions,
    /// One round, for cron
    #[arg(long)]
    pub(super) once: bool,
    /// Print what is known and would be done in one round, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) common: CommonOptions,
}

/// A program and its arguments. A type of its own: clap would take a `Vec` for an option that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(pub Vec<String>);

fn parse_words(text: &str) -> Result<Words, String> {
    // Quoted as for a shell, a star is no other than without.
    let words: Vec<String> = text.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
    match words.first() {
        Some(program) if !program.is_empty() => Ok(Words(words)),
        _ => Err(format!("invalid command {text:?}, expected e.g. \"qstat -u * -xml\"")),
    }
}

fn parse_word(text: &str) -> Result<Word, String> {
    Word::try_new(text).ok_or_else(|| format!("invalid release {text:?}, expected e.g. \"bookworm\""))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn commands_are_words() {
        let words = parse_words(" qstat  -u '*' -xml ").unwrap().0;
        assert_eq!(words, ["qstat", "-u", "*", "-xml"]);
        for text in ["", " ", "''"] {
            assert!(parse_words(text).is_err_and(|error| error.contains("expected e.g.")), "{text:?}");
        }
    }

    #[test]
    fn patterns_have_one_star() {
        let home = Places::parse("/data/project/*/service.manifest").unwrap().home("hello");
        assert_eq!(home, PathBuf::from("/data/project/hello"));
        for text in ["", "x/*/y", "/x/y", "/x/*/", "/x/*/y/z", "/x*/*/y", "/x/*/*/y", "/x/*/*.manifest", "/x/?/y"] {
            assert!(Places::parse(text).is_err_and(|error| error.contains("expected e.g.")), "{text:?}");
        }
    }
}
