//! portgrabber's watcher: a second process that registers the command with the proxies while it listens.
//!
//! The command replaces portgrabber's process, so another process must register, renew and unregister. The watcher is not a
//! child of the command, which may not expect one: an intermediate process starts it and exits at once. It is in the command's
//! process group and session, so it gets all signals that Grid Engine sends to the job. It detects the command's end by a
//! pidfd on its standard input, opened before the command started.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::active_proxy::{self, Proxy};
use super::announcement::{Announcement, AnnouncementConfig};
use super::job_record::JobRecord;
use super::registration::{ListenWait, Service};
use super::signals::Signals;

/// The running program, even if its file was replaced.
const SELF: &str = "/proc/self/exe";
/// Time to unregister.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The stage of a process that portgrabber starts, from a hidden option.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// The intermediate process: starts the watcher, and exits.
    Fork,
    /// The watcher.
    Watch,
}

/// Starts the intermediate process with these arguments, as a child with a pidfd of this process, and waits for it.
pub fn start(arguments: &[OsString]) -> io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut child = Command::new(SELF);
    child.arg0("portgrabber").args(arguments).stdin(Stdio::from(own)).stdout(Stdio::null());
    match child.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("the watcher could not be started, {status}"))),
        // The parent ignored SIGCHLD: the child has ended with an unknown status.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::CHILD) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The intermediate process: starts the watcher, and does not wait for it.
pub fn fork(arguments: &[OsString]) -> io::Result<()> {
    // Standard error stays the job's log. The job's directory is not held open.
    let mut watcher = Command::new(SELF);
    watcher.arg0("portgrabber").args(arguments).stdout(Stdio::null()).current_dir("/");
    // Grid Engine counts the address space of all processes of a job for h_vmem, and each malloc arena takes 64 MiB.
    watcher.env("MALLOC_ARENA_MAX", "1").spawn().map(drop)
}

/// The watcher: keeps the command registered until the process of the pidfd has ended.
pub async fn watch(config: AnnouncementConfig, mut proxies: Vec<Proxy>) -> io::Result<()> {
    let mut signals = Signals::catch()?;
    let mut ended = end_of_command()?;
    let interval = config.interval;
    loop {
        let mut announcement = Announcement::begin(config.clone(), proxies.clone());
        let is_over = loop {
            tokio::select! {
                _ = &mut ended => break true,
                signal = signals.next() => match signal {
                    Signal::USR1 | Signal::USR2 => {}
                    _ => break false,
                },
                // A failure to register does not end the command.
                _ = announcement.next_event() => {}
            }
        };
        announcement.end(Instant::now() + UNREGISTER_TIMEOUT).await;
        if is_over {
            return Ok(());
        }
        // The command got the signal, too. If it survives, it is registered again.
        tokio::select! {
            _ = &mut ended => return Ok(()),
            () = sleep(interval) => {}
        }
        info!("command still runs after the signal; registering again");
        if let Some(file) = &config.file {
            match active_proxy::read(file) {
                Ok(now) => proxies = now,
                Err(error) => warn!("{error}; keeping the previous proxies"),
            }
        }
    }
}

/// Waits for the process of the pidfd, on a thread, since poll(2) blocks.
fn end_of_command() -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("command".into()).spawn(move || {
        let stdin = io::stdin();
        // If polling fails, there is no process to wait for.
        let _ = retry_on_intr(|| poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None));
        let _ = ended.send(());
    })?;
    Ok(end)
}

/// The configuration for a command that this program cannot end.
pub fn config(file: std::path::PathBuf, service: Service, interval: Duration) -> AnnouncementConfig {
    AnnouncementConfig {
        file: Some(file),
        service,
        wait: ListenWait { timeout: None, fail_on_foreign_server: false },
        interval,
        record: Arc::new(JobRecord::of_job()),
    }
}
