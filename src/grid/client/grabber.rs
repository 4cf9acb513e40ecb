//! portgrabber: finds a port, has a companion tell the proxies once somebody listens there, and becomes the command.

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
The port is the command's last argument, and in its environment as PORT and TOOL_WEB_PORT. The command has to listen on it
at all addresses (0.0.0.0 or [::]).

portgrabber becomes the command. A second process stays beside it, in its process group: it tells the proxies as soon as
the user's own server listens on the port, tells them again about every --renew-interval, and unregisters when the command
has ended. A proxy that cannot be told does not end the command: it is told as soon as it can be, standard error says so.
If the job is killed, portreleaser unregisters, which is for the queue's epilog to run.

TOOL is checked and logged. As which tool the service is registered, the identd of this host decides.

FILE has a proxy on each line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the port is 8282 if not
said. Blank lines and what follows # do not count. It is read again before each renewal: a new proxy is told, one that has
left is unregistered from.

Exit status: the command's, since portgrabber becomes it. Without running it:
    64  wrong command line                         71  the system refuses a socket or a process
    66  FILE cannot be read                        75  no port is free
    78  a line of FILE is no proxy
    126, 127  the command cannot be run, there is no such program

    portgrabber hello ./server --listen";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "portgrabber",
    version,
    about = "Finds a free port, runs the command that is to listen on it, and has the proxies send a tool's requests there",
    after_help = HELP
)]
pub struct Options {
    /// File with the proxies to tell
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    active_proxy_file: PathBuf,
    /// Have requests redirected to the tool's own host first
    #[arg(long)]
    canonical: bool,
    /// Longest time between two renewals at each proxy
    #[arg(long, value_name = "TIME", default_value = DEFAULT_INTERVAL, value_parser = parse_duration)]
    renew_interval: Duration,
    /// Which process of portgrabber's this is, and the port: portgrabber alone says that
    #[arg(long, hide = true, value_parser = parse_stage)]
    companion: Option<(Stage, u16)>,
    /// Tool that the command serves
    #[arg(value_name = "TOOL", value_parser = parse_tool)]
    tool: ToolName,
    /// Command to run and its arguments; the port is appended
    #[arg(value_name = "COMMAND", required = true, num_args = 1.., trailing_var_arg = true)]
    command: Vec<OsString>,
}

fn parse_tool(text: &str) -> Result<ToolName, String> {
    if text.is_empty() {
        return Err("a tool has a name, e.g. \"hello\"".into());
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
    read().ok_or_else(|| format!("invalid companion {text:?}, expected fork:PORT or watch:PORT"))
}

/// Runs the program until it is the command; returns the exit status when that is not to be, or of the companion.
///
/// # Errors
/// The command, or the companion, cannot be started.
pub fn work(options: Options) -> Result<u8, Failure> {
    let accompany = match options.companion {
        None => return options.grab().map(|never| match never {}),
        Some((Stage::Fork, port)) => watcher::fork(&options.watcher_args("watch", port)),
        Some((Stage::Watch, port)) => options.watch(port),
    };
    accompany.map(|()| 0).map_err(start_failure)
}

impl Options {
    fn grab(mut self) -> Result<Infallible, Failure> {
        let proxies = active_proxy::read(&self.active_proxy_file)?;
        // The companion has another directory.
        self.active_proxy_file = path::absolute(&self.active_proxy_file).map_err(start_failure)?;
        let reservation = PortReservation::any()?;
        let port = reservation.port();
        info!("port {port} for {}", self.tool);
        if proxies.is_empty() {
            warn!("no proxy in {:?}: not registered", self.active_proxy_file);
        }
        // Before the reservation is what the command inherits: the companion does not hold it.
        watcher::start(&self.watcher_args("fork", port)).map_err(start_failure)?;
        reservation.keep_over_exec().map_err(start_failure)?;
        let (program, args) =
            self.command.split_first().ok_or_else(|| start_failure(io::ErrorKind::InvalidInput.into()))?;
        let error = Command::new(program).args(args).arg(port.to_string()).envs(port_variables(port)).exec();
        Err(JobError::Command { program: program.clone(), error }.into())
    }

    /// The command line of the companion: what it needs, and what `ps` should show.
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
        // It was there a moment ago, and will be read again.
        let proxies = active_proxy::read(&self.active_proxy_file).unwrap_or_else(|error| {
            warn!("{error}");
            Vec::new()
        });
        let service = Service { port, canonical: self.canonical, uid: geteuid().as_raw() };
        let config = watcher::config(self.active_proxy_file, service, self.renew_interval);
        super::block_on(watcher::watch(config, proxies)).and_then(|outcome| outcome)
    }
}

fn start_failure(error: io::Error) -> Failure {
    Failure::system(error, "starting")
}
