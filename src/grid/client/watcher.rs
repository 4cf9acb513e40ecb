//! portgrabber's companion: a process of its own, which stays beside the command and has the proxies know of it while it
//! listens.
//!
//! The command replaces portgrabber's process, so somebody else has to see it listen, renew, and see it end. The companion is
//! no child of the command, which could be surprised by one: an intermediate process starts it and ends at once. It is in the
//! command's process group and session, so whatever Grid Engine sends to the job, it gets too. It sees the command's end by
//! a pidfd on its standard input, taken before the command began.

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

/// This very program, also when its file has been replaced.
const SELF: &str = "/proc/self/exe";
/// For telling the proxies of the end.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Which process of portgrabber's this is; said by a hidden option.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Starts the companion, and ends.
    Fork,
    /// Is the companion.
    Watch,
}

/// Starts this program again with these arguments in the first [`Stage`], as a child with a pidfd of this process, and waits
/// for it.
///
/// # Errors
/// The system's; the child's failure.
pub fn start(arguments: &[OsString]) -> io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut child = Command::new(SELF);
    child.arg0("portgrabber").args(arguments).stdin(Stdio::from(own)).stdout(Stdio::null());
    match child.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("the companion could not be started, {status}"))),
        // Who started us ignores SIGCHLD: the child has ended, and nobody knows how.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::CHILD) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the first stage does: starts the second, and leaves it alone.
///
/// # Errors
/// The system's.
pub fn fork(arguments: &[OsString]) -> io::Result<()> {
    // Standard error stays the job's log. The directory of the job's is not held.
    let mut companion = Command::new(SELF);
    companion.arg0("portgrabber").args(arguments).stdout(Stdio::null()).current_dir("/");
    // Grid Engine counts the address space of all of a job's processes for its h_vmem, and an arena is 64 MiB of it.
    companion.env("MALLOC_ARENA_MAX", "1").spawn().map(drop)
}

/// What the second stage does, until the process of the pidfd has ended.
///
/// # Errors
/// The system's.
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
                // No refusal ends a command that runs already.
                _ = announcement.next_event() => {}
            }
        };
        announcement.end(Instant::now() + UNREGISTER_TIMEOUT).await;
        if is_over {
            return Ok(());
        }
        // The command has got the signal, too. If it has not ended of it, it is announced again.
        tokio::select! {
            _ = &mut ended => return Ok(()),
            () = sleep(interval) => {}
        }
        info!("the command has not ended: registering again");
        if let Some(file) = &config.file {
            match active_proxy::read(file) {
                Ok(now) => proxies = now,
                Err(error) => warn!("{error}: keeping the proxies read before"),
            }
        }
    }
}

/// Waits for the process of the pidfd on a thread of its own: it has to be waited for in no other way.
fn end_of_command() -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("command".into()).spawn(move || {
        let stdin = io::stdin();
        // One that cannot be polled has no process that could be waited for.
        let _ = retry_on_intr(|| poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None));
        let _ = ended.send(());
    })?;
    Ok(end)
}

/// The config for a command that this program cannot end.
pub fn config(file: std::path::PathBuf, service: Service, interval: Duration) -> AnnouncementConfig {
    AnnouncementConfig {
        file: Some(file),
        service,
        wait: ListenWait { timeout: None, fail_on_foreign_server: false },
        interval,
        record: Arc::new(JobRecord::of_job()),
    }
}
