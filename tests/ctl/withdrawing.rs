//! `accept-withdrawal`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::fake_admin::{FakeAdmin, status, status_held};
use crate::program::{ask, command};
use crate::support::wait::wait_for;

/// Runs the command, and answers as nginx does once the file is there: with `left` records.
fn accept(tools: &[&str], left: u64) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tools.accept");
    let path = file.to_str().unwrap();
    let admin = FakeAdmin::start();
    admin.set("/api/status", status_held(2900, path));
    let args: Vec<_> = ["accept-withdrawal", "--file", path].iter().chain(tools).copied().collect();
    let child = command(&args).env("URLPROXYCTL_ADMIN", admin.url()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the accept file", || file.exists());
    let content = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    admin.set("/api/status", if left > 0 { status_held(left, path) } else { status() });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    (content, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn empty_file_accepts_everything() {
    assert_eq!(accept(&[], 0), (String::new(), "accepted: 2,900 records no longer held\n".into()));
}

#[test]
fn names_accept_those_alone() {
    let (content, printed) = accept(&["hello", "frontend:www.example.org"], 2898);
    assert_eq!(content, "prefix:hello\nfrontend:www.example.org\n");
    assert_eq!(printed, "accepted: 2 records no longer held; 2,898 records still held\n");
}

#[test]
fn nothing_to_accept_is_a_negative_answer() {
    let admin = FakeAdmin::start();
    assert_eq!(ask(&admin, &["accept-withdrawal"]).expect(1).stdout, "no removal is held back\n");
    let answer = ask(&admin, &["accept-withdrawal", "--json"]).expect(1).json();
    assert_eq!(answer, json!({"held": 0, "accepted": 0, "remaining": 0}));
    ask(&admin, &["accept-withdrawal", "a/b"]).expect(64);
}

#[test]
fn a_file_without_effect_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tools.accept");
    let admin = FakeAdmin::start();
    admin.set("/api/status", status_held(2900, file.to_str().unwrap()));
    let run = ask(&admin, &["accept-withdrawal", "--file", file.to_str().unwrap(), "--timeout", "10ms"]).expect(1);
    assert!(run.stdout.starts_with("2,900 records still held after 10ms"), "{run:?}");
    let run = ask(&admin, &["accept-withdrawal", "--file", "/does/not/exist/accept"]).expect(2);
    assert!(
        run.stderr.contains(
            "\"/does/not/exist/accept\", expected its directory to exist, and to run on nginx's machine, as root"
        ),
        "{run:?}"
    );
    assert!(!Path::new("/does/not/exist").exists());
}

#[test]
fn the_answer_chooses_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("precious");
    fs::write(&file, "content").unwrap();
    let admin = FakeAdmin::start();
    admin.set("/api/status", status_held(2900, file.to_str().unwrap()));
    let run = ask(&admin, &["accept-withdrawal"]).expect(2);
    assert!(run.stderr.contains("outside /run/urlproxy; if that is right, add --file"), "{run:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");
}
