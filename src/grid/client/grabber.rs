//! portgrabber: reserves a port, starts a watcher process that registers once a server listens there, and becomes the command.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{self, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use rustix::process::geteuid;
use tracing::{info, warn};

use super::active_proxy::{self, DEFAULT_PATH};
use super::failure::Failure;
use super::job::{JobError, port_variables};
use super::port_reservation::PortReservation;
use super::registration::Service;
use super::renewal::DEFAULT_INTERVAL;
use super::watcher::{self, Stage};
use crate::daemon::parse_duration;
use crate::route::ToolName;

const HELP: &str = "\
The command gets the port as its last argument, and in its environment as PORT and TOOL_WEB_PORT. It must listen on the port
on all addresses (0.0.0.0 or [::]).

portgrabber becomes the command. A second process, the watcher, runs in the same process group: it registers with the
proxies as soon as the user's own server listens on the port, renews about every --renew-interval, and unregisters when
the command has ended. If registering fails, the command goes on: the watcher logs to standard error and retries.
If the job is killed, portreleaser in the queue's epilog unregisters.

TOOL is validated and logged only. The identd of this host decides which tool is registered.

FILE lists one proxy per line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the default port is
8282. Blank lines and comments from # on are ignored. FILE is reread before each renewal: the watcher registers with added
proxies and unregisters from removed ones.

Exit status: the command's, since portgrabber becomes it. If the command was not run:
    64  usage error                                71  the system refuses a socket or a process
    66  FILE cannot be read                        75  no port is free
    78  a line of FILE is invalid
    126, 127  the command cannot be run, does not exist

    portgrabber hello ./server --listen";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "portgrabber",
    version,
    about = "Reserves a free port, runs a command that listens on it, and registers it with the proxies",
    after_help = HELP
)]
pub struct Options {
    /// File that lists the proxies
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    active_proxy_file: PathBuf,
    /// Redirect clients to the tool's own host
    #[arg(long)]
    canonical: bool,
    /// Longest time between two renewals at each proxy
    #[arg(long, value_name = "TIME", default_value = DEFAULT_INTERVAL, value_parser = parse_duration)]
    renew_interval: Duration,
    /// Internal: the stage of the watcher process, and the port
    #[arg(long = "companion", hide = true, value_parser = parse_stage)]
    watcher: Option<(Stage, u16)>,
    /// Tool that the command serves
    #[arg(value_name = "TOOL", value_parser = parse_tool)]
    tool: ToolName,
    /// Command to run and its arguments; the port is appended
    #[arg(value_name = "COMMAND", required = true, num_args = 1.., trailing_var_arg = true)]
    command: Vec<OsString>,
}

fn parse_tool(text: &str) -> Result<ToolName, String> {
    if text.is_empty() {
        return Err("empty tool name, expected e.g. \"hello\"".into());
    }
    ToolName::try_new(text.as_bytes()).map_err(|error| error.to_string())
}

fn parse_stage(text: &str) -> Result<(Stage, u16), String> {
    let read = || {
        let (stage, port) = text.split_once(':')?;
        let stage = match stage {
            "fork" => Stage::Fork,
            "watch" => Stage::Watch,
            _ => return None,
        };
        Some((stage, port.parse().ok()?))
    };
    read().ok_or_else(|| format!("invalid stage {text:?}, expected fork:PORT or watch:PORT"))
}

/// Becomes the command, or runs as the watcher and returns its exit status.
///
/// # Errors
/// The command or the watcher cannot be started.
pub fn work(options: Options) -> Result<u8, Failure> {
    let watched = match options.watcher {
        None => return options.grab().map(|never| match never {}),
        Some((Stage::Fork, port)) => watcher::fork(&options.watcher_args("watch", port)),
        Some((Stage::Watch, port)) => options.watch(port),
    };
    watched.map(|()| 0).map_err(start_failure)
}

impl Options {
    fn grab(mut self) -> Result<Infallible, Failure> {
        let proxies = active_proxy::read(&self.active_proxy_file)?;
        // The watcher has another directory.
        self.active_proxy_file = path::absolute(&self.active_proxy_file).map_err(start_failure)?;
        let reservation = PortReservation::any()?;
        let port = reservation.port();
        info!("reserved port {port} for {}", self.tool);
        if proxies.is_empty() {
            warn!("no proxy in {:?}; not registering", self.active_proxy_file);
        }
        // The watcher starts first, so that it does not inherit the reservation.
        watcher::start(&self.watcher_args("fork", port)).map_err(start_failure)?;
        reservation.keep_over_exec().map_err(start_failure)?;
        let (program, args) =
            self.command.split_first().ok_or_else(|| start_failure(io::ErrorKind::InvalidInput.into()))?;
        let error = Command::new(program).args(args).arg(port.to_string()).envs(port_variables(port)).exec();
        Err(JobError::Command { program: program.clone(), error }.into())
    }

    /// The watcher's command line: its options, and what `ps` should show.
    fn watcher_args(&self, stage: &str, port: u16) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--companion".into(), format!("{stage}:{port}").into()];
        arguments.extend(["--active-proxy-file".into(), self.active_proxy_file.clone().into_os_string()]);
        arguments.extend(["--renew-interval".into(), format!("{}ms", self.renew_interval.as_millis()).into()]);
        if self.canonical {
            arguments.push("--canonical".into());
        }
        arguments.extend(["--".into(), OsStr::from_bytes(self.tool.as_bytes()).to_owned()]);
        arguments.extend(self.command.first().cloned());
        arguments
    }

    fn watch(self, port: u16) -> io::Result<()> {
        // The file was readable a moment ago, and is reread at intervals.
        let proxies = active_proxy::read(&self.active_proxy_file).unwrap_or_else(|error| {
            warn!("{error}; retrying");
            Vec::new()
        });
        let service = Service { port, canonical: self.canonical, uid: geteuid().as_raw() };
        let config = watcher::config(self.active_proxy_file, service, self.renew_interval);
        super::block_on(watcher::watch(config, proxies)).and_then(|outcome| outcome)
    }
}

fn start_failure(error: io::Error) -> Failure {
    Failure::system(error, "starting portgrabber")
}
