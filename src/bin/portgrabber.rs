//! portgrabber: finds a port, has the proxies know of it, and becomes the command that listens there.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use urlproxy::daemon::exit_on;
use urlproxy::grid::client::{grabber, start_log};

fn main() -> ExitCode {
    match grabber::Options::try_parse() {
        Ok(options) => {
            start_log();
            ExitCode::from(grabber::run(options))
        }
        Err(error) => exit_on(&error),
    }
}
