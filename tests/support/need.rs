//! Requirements of tests. A test fails if its machine lacks something, unless `URLPROXY_MAY_SKIP` allows skipping it.

use std::process::{Command, Stdio};

/// Variable with the names of what may be missing, such as `root oidentd`; `1` means everything.
pub const MAY_SKIP: &str = "URLPROXY_MAY_SKIP";

/// Whether tests that need `what` may be skipped.
pub fn may_skip(what: &str) -> bool {
    let named = std::env::var(MAY_SKIP).unwrap_or_default();
    named.split([' ', ',']).any(|word| word == what || word == "1")
}

/// Returns `is_there`; panics if it is false and the test may not be skipped.
#[track_caller]
pub fn need(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(may_skip(what), "this test needs {what}, which is not here; {MAY_SKIP}={what} skips it");
        eprintln!("skipped: {what} is not here");
    }
    is_there
}

/// Whether the test runs as root, which can switch users and create namespaces.
#[track_caller]
pub fn need_root() -> bool {
    need("root", rustix::process::geteuid().is_root())
}

/// Whether a program can be run, with a harmless argument.
#[track_caller]
pub fn need_program(program: &str, harmless: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg(harmless).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    need(program, status.is_ok())
}
