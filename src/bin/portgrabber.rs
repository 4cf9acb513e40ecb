//! portgrabber: finds a port, has the proxies know of it, and becomes the command that listens there.

use std::process::ExitCode;

use urlproxy::grid::client::{grabber, run};

fn main() -> ExitCode {
    run(grabber::work)
}
