//! webservice-runner: runs a tool's web server on the grid, and has the proxies know of it while it listens.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use urlproxy::daemon::exit_on;
use urlproxy::grid::client::{runner, start_log};

fn main() -> ExitCode {
    match runner::Options::try_parse() {
        Ok(options) => {
            start_log();
            ExitCode::from(runner::run(options))
        }
        Err(error) => exit_on(&error),
    }
}
