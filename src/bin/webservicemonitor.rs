//! webservicemonitor: restarts web services on the grid that should run but do not.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::monitor::{Options, run_helper_role, serve};

fn main() -> ExitCode {
    run_helper_role().unwrap_or_else(|| run::<Options, _>(serve))
}
