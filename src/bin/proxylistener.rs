//! proxylistener: registers the web services of grid jobs as routes in Redis.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::grid::{Options, serve};

fn main() -> ExitCode {
    run::<Options, _>(serve)
}
