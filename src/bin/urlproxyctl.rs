//! urlproxyctl: shows what the proxy routes and why, and changes routes in Redis.

use std::process::ExitCode;

fn main() -> ExitCode {
    urlproxy::ctl::run()
}
