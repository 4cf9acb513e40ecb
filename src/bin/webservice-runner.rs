//! webservice-runner: runs a tool's web server on the grid, and registers it with the proxies while it listens.

use std::process::ExitCode;

use urlproxy::grid::client::{run, runner};

fn main() -> ExitCode {
    run(runner::work)
}
