//! invisible-unicorn: the HTTP API with which projects map whole domains to their backends.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::domains::{Options, serve};

fn main() -> ExitCode {
    run::<Options, _>(serve)
}
