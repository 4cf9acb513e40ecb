//! The command line of webservice.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::nearest::nearest;
use crate::daemon::{ProjectOptions, parse_duration};
use crate::web_type::{BackendName, SiteConfig};

const HELP: &str = "\
Actions:
    start      start the web service, and keep it running: if it ends, the platform starts it again
    stop       stop it for good
    restart    stop it if it runs, and start it
    status     print whether it runs
    logs       print the end of its log
    shell      open a shell in a container like that of the web service (kubernetes)

TYPE is the kind of web server; `webservice --types` lists them. EXTRA are arguments for it, for \"generic\" the command and its
arguments. Write -- before EXTRA that begins with a dash.

What the command line does not say is taken from service.template in your home (or in www/python/src, www/js, public_html),
else from the running web service (service.manifest), else it is the site's default. Keys of service.template: backend,
type, release, cpu, mem, replicas, extra_args (a list), buildservice-image.

Exit status: 0, 1 if it failed, 64 on usage errors.

Examples:
    webservice start
    webservice lighttpd start
    webservice generic start -- ./server --verbose
    webservice --backend=kubernetes --mem 1Gi python3.11 start
    webservice restart --wait
    webservice logs --follow
    webservice status --json";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "webservice",
    version,
    about = "Starts, stops and shows the web service of a tool; run it as the tool's account",
    override_usage = "webservice [OPTIONS] [TYPE] start|stop|restart|status|logs|shell [EXTRA]... [-- EXTRA...]",
    after_help = HELP,
    arg_required_else_help = true,
    mut_arg("project", |arg| arg.hide(true)),
    mut_arg("project_file", |arg| arg.hide(true))
)]
pub struct Options {
    /// Where it runs: gridengine or kubernetes
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<BackendName>,
    /// Template to use, instead of service.template in the home
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// Release of the hosts of the grid, e.g. bookworm
    #[arg(long, value_name = "NAME")]
    pub release: Option<String>,
    /// Ignored: the site decides
    #[arg(long, hide = true)]
    pub canonical: bool,
    /// Memory in Kubernetes, e.g. 512Mi
    #[arg(short, long = "mem", value_name = "QUANTITY")]
    pub memory: Option<String>,
    /// Processors in Kubernetes, e.g. 500m
    #[arg(short, long, value_name = "QUANTITY")]
    pub cpu: Option<String>,
    /// Pods in Kubernetes
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: Option<u32>,
    /// For logs: print new lines as they come, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// For logs: number of lines
    #[arg(short, long, value_name = "NUMBER")]
    pub last: Option<u32>,
    /// Image of the tool's own, in place of TYPE
    #[arg(long, value_name = "IMAGE")]
    pub buildservice_image: Option<String>,
    /// For start and restart: wait until the proxy routes to the tool, or say why it does not
    #[arg(long)]
    pub wait: bool,
    /// Longest time of each wait [default: 25s, with --wait 2m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// For status: print JSON
    #[arg(long)]
    pub json: bool,
    /// List the types of web service, and exit
    #[arg(long)]
    pub types: bool,
    /// Configuration of the site
    #[arg(long, value_name = "FILE", default_value = SiteConfig::PATH)]
    pub config: PathBuf,
    /// The project of the tool accounts.
    #[command(flatten)]
    pub project: ProjectOptions,
    /// Type, action and arguments
    #[arg(value_name = "TYPE ACTION EXTRA", hide = true)]
    words: Vec<OsString>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
    Status,
    Restart,
    Shell,
    Logs,
}

/// The words of the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// `TYPE`.
    pub web: Option<String>,
    /// What to do.
    pub action: Action,
    /// `EXTRA`.
    pub extra: Vec<OsString>,
}

impl Action {
    const ALL: [(&str, Self); 6] = [
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("restart", Self::Restart),
        ("status", Self::Status),
        ("logs", Self::Logs),
        ("shell", Self::Shell),
    ];

    /// `None` if the word is no action.
    fn of(word: &OsString) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| word == name).map(|(_, action)| *action)
    }
}

impl Options {
    /// The words of the command line.
    ///
    /// # Errors
    /// There is no action among the first two words, or an option that the action does not have.
    pub fn words(&mut self) -> Result<Words, clap::Error> {
        let words = parse_words(std::mem::take(&mut self.words)).map_err(usage)?;
        let starts = matches!(words.action, Action::Start | Action::Restart);
        if let Some(first) = words.extra.first().filter(|_| !starts && words.action != Action::Shell) {
            return Err(usage(format!(
                "unexpected argument {first:?}; TYPE stands before the action: `webservice TYPE stop`"
            )));
        }
        for (option, is_given, is_fitting, where_to) in [
            ("--wait", self.wait, starts, "start and restart"),
            ("--json", self.json, words.action == Action::Status, "status"),
            ("--follow", self.follow, words.action == Action::Logs, "logs"),
            ("--last", self.last.is_some(), words.action == Action::Logs, "logs"),
        ] {
            if is_given && !is_fitting {
                return Err(usage(format!("{option} is for {where_to} only")));
            }
        }
        Ok(words)
    }
}

/// A usage error in clap's format.
fn usage(message: String) -> clap::Error {
    Options::command().error(ErrorKind::InvalidValue, message)
}

/// The action is the first or the second word; what follows is EXTRA, whatever it looks like.
fn parse_words(mut words: Vec<OsString>) -> Result<Words, String> {
    let names = Action::ALL.map(|(name, _)| name);
    let listed = names.join(", ");
    let at = words.iter().take(2).position(|word| Action::of(word).is_some());
    let Some((at, action)) = at.and_then(|at| Some((at, Action::of(&words[at])?))) else {
        let Some(word) = words.last() else { return Err(format!("no action, expected one of {listed}")) };
        // The mistaken word is the second, or the only one.
        let word = words.get(1).unwrap_or(word).to_string_lossy();
        return Err(match nearest(&word, names) {
            Some(name) => format!("no action; did you mean {name:?} by {word:?}?"),
            None if words.len() == 1 => format!("no action behind {word:?}, expected one of {listed}"),
            None => format!("unknown action {word:?}, expected one of {listed}"),
        });
    };
    let extra = words.split_off(at + 1);
    let web = if at == 1 { words.into_iter().next() } else { None };
    let web = web.map(|word| word.into_string().map_err(|word| format!("type {word:?} is not UTF-8"))).transpose()?;
    Ok(Words { web, action, extra })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<(Option<String>, Action, Vec<OsString>), String> {
        let args = [&["webservice"], args].concat();
        let mut options = Options::try_parse_from(args).map_err(|error| error.to_string())?;
        let words = options.words().map_err(|error| error.to_string())?;
        Ok((words.web, words.action, words.extra))
    }

    #[test]
    fn type_and_extra_are_around_the_action() {
        let words = |web: Option<&str>, action, extra: &[&str]| {
            Ok((web.map(str::to_owned), action, extra.iter().map(OsString::from).collect()))
        };
        for (args, want) in [
            (&["start"][..], words(None, Action::Start, &[])),
            (&["lighttpd", "stop"], words(Some("lighttpd"), Action::Stop, &[])),
            (&["generic", "start", "./server", "x"], words(Some("generic"), Action::Start, &["./server", "x"])),
            (
                &["generic", "start", "--", "./server", "--x"],
                words(Some("generic"), Action::Start, &["./server", "--x"]),
            ),
            (
                &["generic", "start", "a", "--mem", "1Gi", "--", "-b"],
                words(Some("generic"), Action::Start, &["a", "-b"]),
            ),
            (&["start", "--", "stop"], words(None, Action::Start, &["stop"])),
            (&["start", "stop"], words(None, Action::Start, &["stop"])),
            (&["restart", "stop"], words(None, Action::Restart, &["stop"])),
            (&["--backend", "gridengine", "x", "--release=a", "restart"], words(Some("x"), Action::Restart, &[])),
            (&["--canonical", "status", "--json"], words(None, Action::Status, &[])),
            (&["logs", "-f", "-l", "5"], words(None, Action::Logs, &[])),
            (&["generic", "start", "--", ""], words(Some("generic"), Action::Start, &[""])),
        ] {
            assert_eq!(parsed(args), want, "{args:?}");
        }
    }

    #[test]
    fn usage_errors_say_what_is_expected() {
        for (args, wanted) in [
            (&["strat"][..], "did you mean \"start\" by \"strat\""),
            (&["lighttpd", "strat"], "did you mean \"start\" by \"strat\""),
            (&["lighttpd"], "no action behind \"lighttpd\", expected one of start, stop, restart"),
            (&["a", "b", "start"], "unknown action \"b\""),
            (&["--mem", "1Gi"], "no action, expected one of"),
            (&["generic", "start", "./server", "--verbose"], "-- --verbose"),
            (&["--backend=grid", "start"], "expected \"gridengine\" or \"kubernetes\""),
            (&["--replicas", "0", "start"], "0"),
            (&["stop", "lighttpd"], "unexpected argument \"lighttpd\"; TYPE stands before the action"),
            (&["stop", "--wait"], "--wait is for start and restart only"),
            (&["start", "--json"], "--json is for status only"),
            (&["start", "-f"], "--follow is for logs only"),
        ] {
            let error = parsed(args).expect_err("an error");
            assert!(error.contains(wanted), "{args:?}: {error}");
        }
    }
}
