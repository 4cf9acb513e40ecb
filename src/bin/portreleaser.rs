//! portreleaser: unregisters a tool's web service; for a queue's epilog.

use std::process::ExitCode;

use urlproxy::grid::client::{releaser, run};

fn main() -> ExitCode {
    run(releaser::work)
}
