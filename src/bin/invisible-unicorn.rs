//! invisible-unicorn: has the proxy send whole domains to the backends that their projects name.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::domains::{Options, serve};

fn main() -> ExitCode {
    run::<Options, _>(serve)
}
