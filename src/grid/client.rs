//! The programs that run on exec hosts and register with the proxies: webservice-runner, portgrabber, portreleaser.
//!
//! `runner`, `grabber` (with its `watcher` process) and `releaser` are the programs. `active_proxy` lists the proxies,
//! `exchange` sends one command, `protocol_support` learns which commands a proxy knows. `registration`, `renewal` and
//! `unregistration` handle one proxy, `announcement` all of them; `job_record` remembers registrations for the epilog.
//! `port_reservation` chooses a port, `listening_socket` checks who listens on it. `web_service` is the
//! type that the runner runs for its `own_account`, and `print_config` shows it; `job` runs the command, with a `scratch` directory and
//! an `error_log`, and forwards `signals`. `failure` and `status` give the exit status.

mod active_proxy;
mod announcement;
mod error_log;
mod exchange;
mod failure;
pub mod grabber;
mod job;
mod job_record;
mod listening_socket;
mod own_account;
mod port_reservation;
mod print_config;
mod protocol_support;
mod registration;
pub mod releaser;
mod renewal;
pub mod runner;
mod scratch;
mod signals;
mod status;
mod unregistration;
mod watcher;
mod web_service;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing::error;

use crate::daemon::{EX_USAGE, LogOptions, exit_on, start_log};

pub use active_proxy::{ActiveProxyError, Proxy, parse_active_proxies, read as read_active_proxies};
pub use failure::Failure;
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use {job_record::parse_record, listening_socket::parse_sockets};

/// Runs one of the programs: parses its command line, logs to standard error, and exits with the status of `work`.
pub fn run<O: Parser>(work: impl FnOnce(O) -> Result<u8, Failure>) -> ExitCode {
    let options = match O::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(LogOptions::default());
    match work(options) {
        Ok(status) => ExitCode::from(status),
        Err(Failure { error, status: EX_USAGE }) => exit_on(&O::command().error(ErrorKind::ValueValidation, error)),
        Err(Failure { error, status }) => {
            error!("{error}");
            ExitCode::from(status)
        }
    }
}

/// Runs a program's asynchronous part. Does not wait for a hanging resolver at the end.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}
