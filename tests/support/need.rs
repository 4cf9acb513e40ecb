//! What a test needs of its machine. A test that cannot run has not passed: it fails, unless skipping was asked for.

use std::process::{Command, Stdio};

/// Names what may be missing, such as `root oidentd`; `1` is everything.
pub const MAY_SKIP: &str = "URLPROXY_MAY_SKIP";

/// Whether the tests that need this may be skipped where it is missing.
pub fn may_skip(what: &str) -> bool {
    let named = std::env::var(MAY_SKIP).unwrap_or_default();
    named.split([' ', ',']).any(|word| word == what || word == "1")
}

/// True when it is there; false when it is not, and the test may be skipped.
#[track_caller]
pub fn need(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(may_skip(what), "this test needs {what}, which is not here; {MAY_SKIP}={what} skips it");
        eprintln!("skipped: {what} is not here");
    }
    is_there
}

/// Whether this is root, who can be several users and make namespaces.
#[track_caller]
pub fn need_root() -> bool {
    need("root", rustix::process::geteuid().is_root())
}

/// Whether a program can be run, which it says itself with this argument.
#[track_caller]
pub fn need_program(program: &str, harmless: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg(harmless).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    need(program, status.is_ok())
}
