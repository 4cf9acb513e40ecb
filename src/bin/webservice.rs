//! webservice: starts, stops and shows a tool's web service.

use std::process::ExitCode;

fn main() -> ExitCode {
    urlproxy::webservice::run()
}
