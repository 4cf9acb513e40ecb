//! portgrabber: finds a port, has the proxies know of it, and becomes the command.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use super::active_proxy::{self, DEFAULT_PATH, Proxy};
use super::port::Claim;
use super::registration::{Refusal, Registration, Service};
use super::status::{EX_NOPERM, EX_OSERR, EX_TEMPFAIL, of_not_started};
use crate::route::ToolName;

/// For telling all proxies, before it is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// For taking it back when the command is not run after all.
const WITHDRAWAL: Duration = Duration::from_secs(5);
/// Tries at that.
const WITHDRAWAL_TRIES: usize = 5;

const HELP: &str = "\
The port is the command's last argument, and in its environment as PORT. The proxies are told before the command is
started, so it should listen soon, at all addresses (0.0.0.0 or [::]). They are told of its end by portreleaser, which is
for the queue's epilog to run.

TOOL is checked and logged. As which tool the service is registered, the identd of this host decides.

FILE has a proxy on each line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the port is 8282 if not
said. Blank lines and what follows # do not count. Without a proxy in it the command is only run.

Exit status: the command's, since portgrabber becomes it. Without running it:
    64  wrong command line                         75  no port is free, or a proxy could not be told within 15 s
    66  FILE cannot be read                        77  the user is no tool
    78  a line of FILE is no proxy                 71  the system refuses a socket
    126, 127  the command cannot be run, there is no such program

    portgrabber hello ./server --listen";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "portgrabber",
    version,
    about = "Finds a free port, has the proxies send a tool's requests there, and runs the command that is to listen on it",
    after_help = HELP
)]
pub struct Options {
    /// File with the proxies to tell
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    active_proxy_file: PathBuf,
    /// Have requests redirected to the tool's own host first
    #[arg(long)]
    canonical: bool,
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

/// Runs the program until it is the command; returns the exit status when that is not to be.
pub fn run(options: Options) -> u8 {
    match options.grab() {
        Ok(never) => match never {},
        Err(status) => status,
    }
}

impl Options {
    fn grab(self) -> Result<Infallible, u8> {
        let proxies = active_proxy::read(&self.active_proxy_file).map_err(|error| {
            error!("{error}");
            error.status()
        })?;
        let claim = Claim::any().map_err(|error| {
            error!("{error}");
            error.status()
        })?;
        let port = claim.port();
        info!("port {port} for {}", self.tool);
        if proxies.is_empty() {
            warn!("no proxy in {:?}: not registered", self.active_proxy_file);
        }
        let known = super::block_on(register(proxies, port, self.canonical)).map_err(not_begun)??;
        let error = match claim.keep_over_exec() {
            Ok(()) => {
                let (program, args) = self.command.split_first().ok_or(EX_OSERR)?;
                Command::new(program).args(args).arg(port.to_string()).env("PORT", port.to_string()).exec()
            }
            Err(error) => error,
        };
        error!("{error} while starting {:?}", self.command[0]);
        super::block_on(unregister(known)).map_err(not_begun)?;
        Err(of_not_started(&error))
    }
}

fn not_begun(error: io::Error) -> u8 {
    error!("{error} while starting");
    EX_OSERR
}

/// Tells all proxies at once; when one of them is not to be told, nothing is told to any.
async fn register(proxies: Vec<Proxy>, port: u16, canonical: bool) -> Result<Vec<Registration>, u8> {
    let (stop, stopping) = watch::channel(None);
    let deadline = Instant::now() + PATIENCE;
    let mut running = JoinSet::new();
    for proxy in proxies {
        let mut stopping = stopping.clone();
        let mut registration = Registration::new(proxy.clone(), Service { port, canonical, server_of: None });
        running.spawn(async move {
            let outcome = timeout_at(deadline, registration.register(&mut stopping)).await;
            let failure = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(refusal)) => {
                    error!("{refusal}");
                    Some(if matches!(refusal, Refusal::Final { .. }) { EX_NOPERM } else { EX_TEMPFAIL })
                }
                Err(_) => {
                    error!("not registered with {proxy} within {PATIENCE:?}");
                    Some(EX_TEMPFAIL)
                }
            };
            (registration, failure)
        });
    }
    let (registrations, failures): (Vec<_>, Vec<_>) = running.join_all().await.into_iter().unzip();
    drop(stop);
    match failures.into_iter().flatten().max() {
        None => Ok(registrations),
        Some(status) => {
            unregister(registrations).await;
            Err(status)
        }
    }
}

async fn unregister(registrations: Vec<Registration>) {
    let by = Instant::now() + WITHDRAWAL;
    let mut running = JoinSet::new();
    for mut registration in registrations {
        // Told in the log; what remains is the epilog's.
        running.spawn(async move { drop(registration.unregister(by, WITHDRAWAL_TRIES).await) });
    }
    running.join_all().await;
}
