//! The programs that run on exec hosts and register with the proxies: webservice-runner, portgrabber, portreleaser.
//!
//! `runner`, `grabber` (with its `watcher` process) and `releaser` are the programs. `active_proxy` lists the proxies,
//! `exchange` sends one command, `protocol_support` learns which commands a proxy knows. `registration`, `renewal` and
//! `unregistration` handle one proxy, `announcement` all of them; `job_record` remembers registrations for the epilog.
//! `port_reservation` chooses a port, `listening_socket` checks who listens on it. `job` runs the command in `home_dir`
//! and forwards `signals`; `failure` and `status` give the exit status.

mod active_proxy;
mod announcement;
mod exchange;
mod failure;
pub mod grabber;
mod home_dir;
mod job;
mod job_record;
mod listening_socket;
mod port_reservation;
mod protocol_support;
mod registration;
pub mod releaser;
mod renewal;
pub mod runner;
mod signals;
mod status;
mod unregistration;
mod watcher;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tracing::error;

use crate::daemon::{LogOptions, exit_on, start_log};

pub use active_proxy::{ActiveProxyError, Proxy, parse_active_proxies, read as read_active_proxies};
pub use failure::Failure;

/// Runs one of the programs: parses its command line, logs to standard error, and exits with the status of `work`.
pub fn run<O: Parser>(work: impl FnOnce(O) -> Result<u8, Failure>) -> ExitCode {
    let options = match O::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(LogOptions::default());
    let ended = work(options).unwrap_or_else(|Failure { error, status }| {
        error!("{error}");
        status
    });
    ExitCode::from(ended)
}

/// Runs a program's asynchronous part. Does not wait for a hanging resolver at the end.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}
