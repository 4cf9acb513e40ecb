//! webservice-runner: runs a tool's web server, and has the proxies know of it while it listens.

use std::ffi::OsString;
use std::io;
use std::path::{self, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Signal, geteuid};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::active_proxy::{self, DEFAULT_PATH, Proxy};
use super::announcement::{Announcement, AnnouncementConfig, Event};
use super::failure::Failure;
use super::home_dir;
use super::job::Job;
use super::job_record::JobRecord;
use super::listening_socket::{NotServing, check_listening};
use super::port_reservation::PortReservation;
use super::registration::{ListenWait, RegistrationError, Service};
use super::renewal::DEFAULT_INTERVAL;
use super::signals::Signals;
use super::status::{EX_NOPERM, EX_UNAVAILABLE, of_exit};
use crate::daemon::parse_duration;

/// A signal that ends the command is held back so long at most, while the proxies are told.
const UNREGISTER_BEFORE_SIGNAL: Duration = Duration::from_secs(2);
/// After the command's end the proxies are told within this time, or not at all.
const UNREGISTER_AFTER_EXIT: Duration = Duration::from_secs(5);
/// How often the command is started, each time on another port, before another user's server on it is the end.
const MAX_STARTS: u32 = 10;

const HELP: &str = "\
The command is started in the home of its user, with a port in its environment as PORT and TOOL_WEB_PORT, and has to
listen on it at all addresses (0.0.0.0 or [::]). As soon as it does, the proxies are told, and again about every
--renew-interval, so that a proxy that has lost the route has it back; when it ends, they are told of that. If another
user's server is on the port first, the command is started again with another one, up to 10 times, unless --port is given.

SIGTERM, SIGINT, SIGQUIT, SIGXCPU and SIGHUP: the proxies are told first, for at most 2 s, then the command gets the
signal, and SIGKILL if it has not ended after --grace. A second one is passed on at once. SIGUSR1 and SIGUSR2 are passed
on. The command and its processes are a process group of their own; what is left of it when the command or this program
ends is killed.

FILE has a proxy on each line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the port is 8282 if not
said. Blank lines and what follows # do not count. Without a proxy in it the command is only run. It is read again before
each renewal: a new proxy is told, one that has left is unregistered from.

Exit status: the command's, 128 + N when signal N ended it; 126 when it cannot be run, 127 when there is no such
program. Of webservice-runner itself:
    64  wrong command line                         69  the command did not listen in time, or its port is taken
    66  FILE cannot be read                        75  no port is free
    78  a line of FILE is no proxy                 77  the user is no tool
                                                   71  the system refuses a process or a socket

    webservice-runner --register-proxy -- ./server
    webservice-runner --register-proxy -- sh -c 'exec ./server --listen 0.0.0.0:$PORT'";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "webservice-runner",
    version,
    about = "Runs a tool's web server on the grid, and has the proxies send requests to it while it listens",
    after_help = HELP
)]
pub struct Options {
    /// Tell the proxies; without it the command is only run
    #[arg(long)]
    register_proxy: bool,
    /// Port for the command, instead of a free one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Kind of web server: only generic, a command of the tool's own
    #[arg(long = "type", value_name = "TYPE", default_value = "generic", value_parser = parse_type)]
    _type: Generic,
    /// Have requests redirected to the tool's own host first
    #[arg(long)]
    canonical: bool,
    /// File with the proxies to tell
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    active_proxy_file: PathBuf,
    /// Longest time between two renewals at each proxy
    #[arg(long, value_name = "TIME", default_value = DEFAULT_INTERVAL, value_parser = parse_duration)]
    renew_interval: Duration,
    /// How long the command may take until it listens
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    listen_timeout: Duration,
    /// How long the command may take to end after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// Command to run and its arguments
    #[arg(value_name = "COMMAND", required = true, num_args = 1.., trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// The one kind there is.
#[derive(Clone, Copy, Debug)]
struct Generic;

fn parse_type(text: &str) -> Result<Generic, String> {
    if text == "generic" { Ok(Generic) } else { Err(format!("type {text:?} is not supported, expected \"generic\"")) }
}

/// Runs the program, and returns its exit status.
///
/// # Errors
/// It cannot run the command.
pub fn work(options: Options) -> Result<u8, Failure> {
    options.begin()
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Running,
    /// The command gets the signal when the proxies know.
    Unregistering(Signal),
    /// The command has got one, and has this long.
    Ending(Instant),
    Killed,
}

/// What follows when a command that is being ended, or has failed, has ended.
#[derive(Debug)]
enum AfterExit {
    /// This program's end, with the command's status.
    Exit,
    /// This program's end, with this one.
    ExitWith(u8),
    /// Another port, and the command again.
    Restart(NotServing),
}

impl Options {
    fn begin(mut self) -> Result<u8, Failure> {
        let reservation = self.port.map_or_else(PortReservation::any, PortReservation::exact)?;
        let proxies = self.proxies()?;
        // Its directory is another from here on.
        self.active_proxy_file = path::absolute(&self.active_proxy_file).map_err(run_failure)?;
        home_dir::enter();
        super::block_on(self.supervise(proxies, reservation)).map_err(run_failure)?
    }

    fn proxies(&self) -> Result<Vec<Proxy>, active_proxy::ActiveProxyError> {
        if !self.register_proxy {
            return Ok(Vec::new());
        }
        let proxies = active_proxy::read(&self.active_proxy_file)?;
        if proxies.is_empty() {
            warn!("no proxy in {:?}: not registered", self.active_proxy_file);
        }
        Ok(proxies)
    }

    /// Runs the command, on another port when another user's server is on the first one.
    async fn supervise(self, proxies: Vec<Proxy>, mut reservation: PortReservation) -> Result<u8, Failure> {
        let mut signals = Signals::catch().map_err(run_failure)?;
        let record = Arc::new(JobRecord::of_job());
        for start in 1.. {
            let may_change_port = self.port.is_none() && start < MAX_STARTS;
            let config = self.config(reservation.port(), may_change_port, Arc::clone(&record));
            let mut job = Job::start(&self.command, reservation.port()).await?;
            info!("started {:?}, port {}", self.command[0], reservation.port());
            let announcement = Announcement::begin(config, proxies.clone());
            let watched = self.watch(&mut job, &mut signals, announcement, may_change_port, &record).await;
            let (status, after_exit) = watched.map_err(run_failure)?;
            job.end().await;
            let not_serving = match after_exit {
                AfterExit::Exit => return Ok(status),
                AfterExit::ExitWith(status) => return Ok(status),
                AfterExit::Restart(not_serving) => not_serving,
            };
            // The old reservation is held until the new one is there: it is not drawn again.
            reservation = PortReservation::any()?;
            warn!("{not_serving}: starting {:?} again, on another port", self.command[0]);
        }
        Ok(EX_UNAVAILABLE)
    }

    fn config(&self, port: u16, may_change_port: bool, record: Arc<JobRecord>) -> AnnouncementConfig {
        AnnouncementConfig {
            file: self.register_proxy.then(|| self.active_proxy_file.clone()),
            service: Service { port, canonical: self.canonical, uid: geteuid().as_raw() },
            wait: ListenWait { timeout: Some(self.listen_timeout), fail_on_foreign_server: may_change_port },
            interval: self.renew_interval,
            record,
        }
    }

    /// Returns the status of the command that has ended, as a shell would have it, and what follows.
    async fn watch(
        &self,
        job: &mut Job,
        signals: &mut Signals,
        mut announcement: Announcement,
        may_change_port: bool,
        record: &JobRecord,
    ) -> io::Result<(u8, AfterExit)> {
        let port = announcement.port();
        let mut phase = Phase::Running;
        let mut after_exit = AfterExit::Exit;
        let status = loop {
            let is_told = matches!(phase, Phase::Running | Phase::Unregistering(_));
            tokio::select! {
                status = job.ended() => break status?,
                signal = signals.next() => {
                    let is_users = signal == Signal::USR1 || signal == Signal::USR2;
                    if !is_users && matches!(after_exit, AfterExit::Restart(_)) {
                        after_exit = AfterExit::Exit;
                    }
                    match phase {
                        _ if is_users => job.signal(signal),
                        Phase::Running => {
                            announcement.unregister_all(Instant::now() + UNREGISTER_BEFORE_SIGNAL);
                            phase = Phase::Unregistering(signal);
                        }
                        Phase::Unregistering(_) => phase = self.forward(job, signal),
                        Phase::Ending(_) | Phase::Killed => job.signal(signal),
                    }
                },
                event = announcement.next_event(), if is_told => match (event, phase) {
                    (Event::Failed(error), Phase::Running) => {
                        after_exit = match error {
                            RegistrationError::PortTaken(not_serving) => AfterExit::Restart(not_serving),
                            error => {
                                error!("{error}: ending {:?}", self.command[0]);
                                let is_final = matches!(error, RegistrationError::Rejected { .. });
                                AfterExit::ExitWith(if is_final { EX_NOPERM } else { EX_UNAVAILABLE })
                            }
                        };
                        announcement.unregister_all(Instant::now() + UNREGISTER_BEFORE_SIGNAL);
                        phase = Phase::Unregistering(Signal::TERM);
                    }
                    (Event::Unregistered, Phase::Unregistering(signal)) => phase = self.forward(job, signal),
                    _ => {}
                },
                () = grace_over(phase) => {
                    warn!("not ended within {:?}: killed", self.grace);
                    job.kill();
                    phase = Phase::Killed;
                }
            }
        };
        info!("ended, {status}");
        // It may have been quicker to see that it cannot listen.
        if may_change_port
            && self.register_proxy
            && matches!(phase, Phase::Running)
            && !status.success()
            && record.is_empty()
            && let Err(not_serving @ NotServing::OtherUser { .. }) = check_listening(port, geteuid().as_raw(), &[])
        {
            after_exit = AfterExit::Restart(not_serving);
        }
        announcement.end(Instant::now() + UNREGISTER_AFTER_EXIT).await;
        Ok((of_exit(status), after_exit))
    }

    fn forward(&self, job: &Job, signal: Signal) -> Phase {
        job.signal(signal);
        Phase::Ending(Instant::now() + self.grace)
    }
}

fn run_failure(error: io::Error) -> Failure {
    Failure::system(error, "running the command")
}

/// Waits for the end of the command's time, if it has one.
async fn grace_over(phase: Phase) {
    match phase {
        Phase::Ending(deadline) => sleep_until(deadline).await,
        _ => std::future::pending().await,
    }
}
