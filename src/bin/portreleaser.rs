//! portreleaser: has the proxies forget a tool's service; a queue's epilog.

use std::process::ExitCode;

use urlproxy::grid::client::{releaser, run};

fn main() -> ExitCode {
    run(releaser::work)
}
