//! proxylistener: lets jobs on the grid tell where their tool listens.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::grid::{Options, serve};

fn main() -> ExitCode {
    run::<Options, _>(serve)
}
