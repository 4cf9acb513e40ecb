//! portreleaser: has the proxies forget a tool's service; a queue's epilog.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use urlproxy::daemon::exit_on;
use urlproxy::grid::client::{releaser, start_log};

fn main() -> ExitCode {
    match releaser::Options::try_parse() {
        Ok(options) => {
            start_log();
            ExitCode::from(releaser::run(options))
        }
        Err(error) => exit_on(&error),
    }
}
