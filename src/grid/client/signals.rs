//! The signals that webservice-runner and portgrabber's watcher catch.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// Catches signals from construction on.
#[derive(Debug)]
pub struct Signals {
    ends: Vec<(Signal, unix::Signal)>,
    others: [unix::Signal; 2],
}

impl Signals {
    /// Sets the handlers: none of these signals ends the program any more.
    pub fn catch() -> io::Result<Self> {
        // If the parent ignored SIGCHLD, the command's end would go unnoticed.
        drop(signal(SignalKind::child())?);
        let mut ends = Vec::new();
        // Grid Engine sends SIGXCPU when a job exceeds its time limit.
        for end in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::XCPU] {
            ends.push((end, signal(SignalKind::from_raw(end.as_raw()))?));
        }
        // Under nohup SIGHUP stays ignored, for the command too.
        if !is_ignored(Signal::HUP) {
            ends.push((Signal::HUP, signal(SignalKind::hangup())?));
        }
        Ok(Self { ends, others: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?] })
    }

    /// Waits for the next signal. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        let [usr1, usr2] = &mut self.others;
        let ends = &mut self.ends;
        let end = poll_fn(|context| {
            let mut caught = ends.iter_mut().filter_map(|(signal, stream)| {
                matches!(stream.poll_recv(context), Poll::Ready(Some(()))).then_some(*signal)
            });
            caught.next().map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            signal = end => signal,
            _ = usr1.recv() => Signal::USR1,
            _ = usr2.recv() => Signal::USR2,
        }
    }
}

/// Whether this process was started with the signal ignored: a bit of `SigIgn`, proc(5).
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}
