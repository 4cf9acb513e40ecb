//! webservice-runner: runs a tool's web server, and registers it with the proxies while it listens.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Signal, geteuid};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::active_proxy::{self, Proxy};
use super::announcement::{Announcement, AnnouncementConfig, Event};
use super::error_log;
use super::failure::Failure;
use super::job::Job;
use super::job_record::JobRecord;
use super::listening_socket::{NotServing, check_listening};
use super::port_reservation::PortReservation;
use super::print_config;
use super::registration::{ListenWait, RegistrationError, Service};
use super::renewal::DEFAULT_INTERVAL;
use super::scratch::{self, Scratch};
use super::signals::Signals;
use super::status::{EX_NOPERM, EX_UNAVAILABLE, of_exit};
use super::web_service::WebService;
use crate::daemon::parse_duration;
use crate::web_type::SiteConfig;

/// Longest delay of a signal to the command, while unregistering.
const UNREGISTER_BEFORE_SIGNAL: Duration = Duration::from_secs(2);
/// Time to unregister after the command's end.
const UNREGISTER_AFTER_EXIT: Duration = Duration::from_secs(5);
/// Most starts of the command, each on another port, if another user's server takes the port.
const MAX_STARTS: u32 = 10;

/// The port in the output of `--print-config`, as in containers.
const PRINTED_PORT: u16 = 8000;

const HELP: &str = "\
Types, unless the site configuration says otherwise:
    generic         a command of your own: COMMAND, in your home
    lighttpd        lighttpd with PHP for ~/public_html, with your ~/.lighttpd.conf
    lighttpd-plain  the same without PHP
    uwsgi-python    (or python) the WSGI application \"app\" in ~/www/python/src/app.py, by uwsgi, with ~/www/python/venv
    uwsgi-plain     uwsgi with your ~/uwsgi.ini
    nodejs          (or js) npm start in ~/www/js

The server gets its port in its environment as PORT and TOOL_WEB_PORT, and must listen on this port on all addresses
(0.0.0.0 or [::]). Once it listens, webservice-runner registers it with the proxies, renews the registration about every
--renew-interval, and unregisters when the server ends. If another user's server takes the port first, the server is
restarted on another port, up to 10 times, unless --port is given. Errors of the server and of webservice-runner are
appended to ~/error.log, unless standard error is a terminal.

SIGTERM, SIGINT, SIGQUIT, SIGXCPU and SIGHUP: webservice-runner unregisters for at most 2 s, then forwards the signal to
the server, and sends SIGKILL if it still runs after --grace. A second such signal is forwarded at once, as are SIGUSR1
and SIGUSR2. The server and its processes form a process group, which is killed when the server or this program ends.

The active-proxy file lists one proxy per line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the
default port is 8282. Blank lines and comments from # on are ignored. If it lists no proxy, the server only runs. It is
reread before each renewal: webservice-runner registers with added proxies and unregisters from removed ones.

Exit status: the server's, 128 + N if signal N ended it; 126 if it cannot be run, 127 if it does not exist. Of
webservice-runner itself:
    64  usage error                                69  the server did not listen in time, or its port is taken
    66  a file cannot be read                      75  no port is free
    78  a file is invalid, or the home lacks       77  the user is not a tool account
        what the type needs                        71  the system refuses a process, a socket or a file

    webservice-runner --register-proxy --type lighttpd
    webservice-runner --register-proxy -- ./server
    webservice-runner --register-proxy -- sh -c 'exec ./server --listen 0.0.0.0:$PORT'
    webservice-runner --type lighttpd --print-config";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "webservice-runner",
    version,
    about = "Runs a tool's web server on the grid, and registers it with the proxies while it listens",
    after_help = HELP
)]
pub struct Options {
    /// Register with the proxies; without this the server only runs
    #[arg(long)]
    register_proxy: bool,
    /// The server's port, instead of a free one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Type of web server, one of those below or of the site configuration
    #[arg(long = "type", value_name = "TYPE", default_value = "generic")]
    web_type: String,
    /// Redirect clients to the tool's own host; the tool then sees / instead of /TOOL
    #[arg(long)]
    canonical: bool,
    /// Site configuration; a missing file means the built-in types and settings
    #[arg(long, value_name = "FILE", default_value = SiteConfig::PATH)]
    config: PathBuf,
    /// Print the type's generated configuration and command line for port 8000 or --port; starts nothing
    #[arg(long)]
    print_config: bool,
    /// Leave standard error as it is, instead of appending it to ~/error.log
    #[arg(long)]
    no_error_log: bool,
    /// File that lists the proxies, unless the site configuration names another [default: /etc/active-proxy]
    #[arg(long, value_name = "FILE")]
    active_proxy_file: Option<PathBuf>,
    /// Longest time between two renewals at each proxy
    #[arg(long, value_name = "TIME", default_value = DEFAULT_INTERVAL, value_parser = parse_duration)]
    renew_interval: Duration,
    /// Longest time until the server listens
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    listen_timeout: Duration,
    /// Longest time for the server to end after a signal, before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// Command to run and its arguments, for the type generic
    #[arg(value_name = "COMMAND", num_args = 0.., trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// Runs the program, and returns its exit status.
///
/// # Errors
/// The command cannot be run.
pub fn work(mut options: Options) -> Result<u8, Failure> {
    let site = SiteConfig::read(&options.config)?;
    let extra = std::mem::take(&mut options.command);
    let mut service = WebService::find(&site, &options.web_type, options.canonical, extra)?;
    if options.print_config {
        let command = service.command(options.port.unwrap_or(PRINTED_PORT), &scratch::name("EXAMPLE"))?;
        // A reader may have closed the pipe.
        let _ = print_config::print(&command);
        return Ok(0);
    }
    let reservation = options.port.map_or_else(PortReservation::any, PortReservation::exact)?;
    let file = options.active_proxy_file.take().unwrap_or(site.active_proxy_file);
    let proxies = options.proxies(&file)?;
    // The directory changes below.
    let file = path::absolute(file).map_err(run_failure)?;
    service.enter_home();
    if !options.no_error_log {
        service.error_log = error_log::redirect_stderr(service.home());
    }
    let runner = Runner { options, file, service };
    super::block_on(runner.supervise(proxies, reservation)).map_err(run_failure)?
}

/// A running program.
struct Runner {
    options: Options,
    /// The active-proxy file, as an absolute path.
    file: PathBuf,
    service: WebService,
}

/// The phase of the command's life.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Running,
    /// The command gets the signal after unregistering.
    Unregistering(Signal),
    /// The command got the signal; SIGKILL follows at this time.
    Ending(Instant),
    Killed,
}

/// What this program does when the command has ended.
#[derive(Debug)]
enum AfterExit {
    /// Exits with the command's status.
    Exit,
    /// Exits with this status.
    ExitWith(u8),
    /// Starts the command again on another port.
    Restart(NotServing),
}

impl Options {
    fn proxies(&self, file: &Path) -> Result<Vec<Proxy>, active_proxy::ActiveProxyError> {
        if !self.register_proxy {
            return Ok(Vec::new());
        }
        let proxies = active_proxy::read(file)?;
        if proxies.is_empty() {
            warn!("no proxy in {file:?}; not registering");
        }
        Ok(proxies)
    }
}

impl Runner {
    /// Runs the command; again on another port if another user's server takes its port.
    async fn supervise(self, proxies: Vec<Proxy>, mut reservation: PortReservation) -> Result<u8, Failure> {
        let mut signals = Signals::catch().map_err(run_failure)?;
        let record = Arc::new(JobRecord::of_job());
        for start in 1.. {
            let may_change_port = self.options.port.is_none() && start < MAX_STARTS;
            let config = self.config(reservation.port(), may_change_port, Arc::clone(&record));
            let scratch = if self.service.needs_scratch() {
                Some(Scratch::create().map_err(|error| Failure::system(error, "creating a directory in TMPDIR"))?)
            } else {
                None
            };
            let scratch = scratch.as_ref().map(Scratch::path);
            let command = self.service.prepare(reservation.port(), scratch.unwrap_or(Path::new("/")))?;
            let program = &command.words[0];
            let mut job = Job::start(&command, reservation.port(), scratch).await?;
            info!("started {program:?} on port {}", reservation.port());
            let announcement = Announcement::begin(config, proxies.clone());
            let watched = self.watch(&mut job, program, &mut signals, announcement, may_change_port, &record).await;
            let (status, after_exit) = watched.map_err(run_failure)?;
            job.end().await;
            let not_serving = match after_exit {
                AfterExit::Exit => return Ok(status),
                AfterExit::ExitWith(status) => return Ok(status),
                AfterExit::Restart(not_serving) => not_serving,
            };
            // The old reservation is kept until the new one exists, so that the same port is not drawn again.
            reservation = PortReservation::any()?;
            warn!("{not_serving}; restarting {program:?} on another port");
        }
        Ok(EX_UNAVAILABLE)
    }

    fn config(&self, port: u16, may_change_port: bool, record: Arc<JobRecord>) -> AnnouncementConfig {
        AnnouncementConfig {
            file: self.options.register_proxy.then(|| self.file.clone()),
            service: Service { port, canonical: self.options.canonical, uid: geteuid().as_raw() },
            wait: ListenWait { timeout: Some(self.options.listen_timeout), fail_on_foreign_server: may_change_port },
            interval: self.options.renew_interval,
            record,
        }
    }

    /// Watches the command until its end. Returns its status, as a shell sets it, and what follows.
    async fn watch(
        &self,
        job: &mut Job,
        program: &OsStr,
        signals: &mut Signals,
        mut announcement: Announcement,
        may_change_port: bool,
        record: &JobRecord,
    ) -> io::Result<(u8, AfterExit)> {
        let port = announcement.port();
        let mut phase = Phase::Running;
        let mut after_exit = AfterExit::Exit;
        let status = loop {
            let wants_events = matches!(phase, Phase::Running | Phase::Unregistering(_));
            tokio::select! {
                status = job.ended() => break status?,
                signal = signals.next() => {
                    let is_user_signal = signal == Signal::USR1 || signal == Signal::USR2;
                    if !is_user_signal && matches!(after_exit, AfterExit::Restart(_)) {
                        after_exit = AfterExit::Exit;
                    }
                    match phase {
                        _ if is_user_signal => job.signal(signal),
                        Phase::Running => {
                            announcement.unregister_all(Instant::now() + UNREGISTER_BEFORE_SIGNAL);
                            phase = Phase::Unregistering(signal);
                        }
                        Phase::Unregistering(_) => phase = self.forward(job, signal),
                        Phase::Ending(_) | Phase::Killed => job.signal(signal),
                    }
                },
                event = announcement.next_event(), if wants_events => match (event, phase) {
                    (Event::Failed(error), Phase::Running) => {
                        after_exit = match error {
                            RegistrationError::PortTaken(not_serving) => AfterExit::Restart(not_serving),
                            error => {
                                error!("{error}; ending {program:?}");
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
                    warn!("command still runs after {:?}; killing it", self.options.grace);
                    job.kill();
                    phase = Phase::Killed;
                }
            }
        };
        info!("command ended, {status}");
        // The command may notice before this program that its port is taken.
        if may_change_port
            && self.options.register_proxy
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
        Phase::Ending(Instant::now() + self.options.grace)
    }
}

fn run_failure(error: io::Error) -> Failure {
    Failure::system(error, "running the command")
}

/// Waits for the end of the grace period, if it has begun.
async fn grace_over(phase: Phase) {
    match phase {
        Phase::Ending(deadline) => sleep_until(deadline).await,
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_the_builtin_types() {
        for name in SiteConfig::default().types().flat_map(|web_type| web_type.names().collect::<Vec<_>>()) {
            let is_listed = HELP.contains(&format!("\n    {name} ")) || HELP.contains(&format!("(or {name})"));
            assert!(is_listed, "{name}");
        }
    }
}
