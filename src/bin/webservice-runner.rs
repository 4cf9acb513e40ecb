//! webservice-runner: runs a tool's web server on the grid, and has the proxies know of it while it listens.

use std::process::ExitCode;

use urlproxy::grid::client::{run, runner};

fn main() -> ExitCode {
    run(runner::work)
}
