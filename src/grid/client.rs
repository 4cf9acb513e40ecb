//! The programs that run on the grid's hosts and tell the proxies: webservice-runner, portgrabber, portreleaser.
//!
//! `runner`, `grabber` (with its `companion`) and `releaser` are the programs; `active_proxy` (whom to tell), `port` (which
//! port), `socket` (who listens on it), `exchange` (one command and its answer), `support` (which commands a proxy
//! understands), `registration` (until it works), `renewal` (again and again), `withdrawal` (back), `announcement` (all
//! proxies at once), `record` (what is registered, for the epilog), `job` (the command and its processes), `home` (where it
//! runs), `signals` (what it is sent), `failure` and `status` (what it leaves).

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

/// Runs one of the programs: reads its command line, logs to standard error, a line an event, and has `work` do the rest and
/// say the exit status.
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

/// Runs one program's asynchronous part. A resolver that hangs is not waited for.
///
/// # Errors
/// The system's, when there is no runtime to be had.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}
