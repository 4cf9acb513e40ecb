//! What a test needs of its machine. A test that cannot run has not passed: it fails, unless skipping was asked for.
#![allow(dead_code, reason = "each test program uses its part of this")]

use std::process::{Command, Stdio};

/// Names what may be missing: `URLPROXY_SKIP="root oidentd"` skips the tests that need these, where they are missing.
const SKIP: &str = "URLPROXY_SKIP";

/// True when it is there; false when it is not, and skipping is asked for.
#[track_caller]
pub fn need(what: &str, is_there: bool) -> bool {
    if is_there {
        return true;
    }
    let asked = std::env::var(SKIP).unwrap_or_default();
    let is_asked = asked.split([' ', ',']).any(|word| word == what);
    assert!(is_asked, "this test needs {what}, which is not here; {SKIP}={what} skips it");
    eprintln!("skipped: {what} is not here");
    false
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
