//! portgrabber: reserves a port, registers it with the proxies, and becomes the command that listens there.

use std::process::ExitCode;

use urlproxy::grid::client::{grabber, run};

fn main() -> ExitCode {
    run(grabber::work)
}
