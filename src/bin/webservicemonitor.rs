//! webservicemonitor: restarts the web services on the grid that should run and do not.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::monitor::{Options, play_role, serve};

fn main() -> ExitCode {
    play_role().unwrap_or_else(|| run::<Options, _>(serve))
}
