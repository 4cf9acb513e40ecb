//! `drain`.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake_admin::{FakeAdmin, status};
use crate::program::{ask, command, fields, finish};
use crate::support::wait::wait_for;

/// The status of a table with this drain file, which drains or not; unknown for `None`.
fn status_with(drain_file: Option<&str>, draining: Option<bool>) -> Value {
    let mut status = status();
    let file = drain_file.unwrap_or("/other");
    status["ready"] = json!(draining == Some(false));
    status["not_ready_because"] = match draining {
        Some(true) => json!(format!("draining, because {file} exists")),
        Some(false) => Value::Null,
        None => json!(format!("Permission denied (os error 13) while looking for drain_file {file}")),
    };
    status["draining"] = json!(draining);
    status["drain_file"] = json!(drain_file);
    status
}

#[test]
fn drain_waits_until_nginx_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out-of-service");
    let path = file.to_str().unwrap();
    let admin = FakeAdmin::start();
    let run_while = |args: &[&str], before: bool| {
        admin.set("/api/status", status_with(Some(path), Some(!before)));
        let mut child = command(args);
        let child = child.env("URLPROXYCTL_ADMIN", admin.url()).stdout(Stdio::piped()).spawn().unwrap();
        wait_for("the change of the file", || file.exists() == before);
        let asked = admin.asked().len();
        wait_for("another look", || admin.asked().len() > asked);
        admin.set("/api/status", status_with(Some(path), Some(before)));
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let drain = ["drain", "--file", path];
    let want = format!("created {path}; /ready of table tools answers 503: draining, because {path} exists\n");
    assert_eq!(run_while(&drain, true), (Some(0), want));
    let metadata = fs::symlink_metadata(&file).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.is_file()), (0o644, true));
    let again = ask(&admin, &drain).expect(0);
    assert!(again.stdout.starts_with(&format!("exists {path}; ")), "{again:?}");
    let undo = ["drain", "--undo", "--file", path];
    let want = format!("removed {path}; /ready of table tools answers 200\n");
    assert_eq!(run_while(&undo, false), (Some(0), want));
    let again = ask(&admin, &undo).expect(0);
    assert!(again.stdout.starts_with(&format!("absent {path}; ")), "{again:?}");
}

#[test]
fn what_nginx_does_not_see_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out-of-service");
    let path = file.to_str().unwrap();
    let admin = FakeAdmin::start();
    let drain = |args: &[&str]| {
        let args: Vec<_> = ["drain", "--file", path, "--wait", "10ms"].iter().chain(args).copied().collect();
        ask(&admin, &args)
    };
    for (drain_file, draining, want) in [
        (
            None,
            Some(false),
            format!(
                "answers 200 after 10ms; urlproxy_table tools has no drain_file, expected e.g. \"drain_file {path};\"\n"
            ),
        ),
        (
            Some("/run/other"),
            Some(false),
            "urlproxy_table tools has another drain_file, try --file /run/other\n".into(),
        ),
        (
            Some(path),
            None,
            format!(
                "answers 503: Permission denied (os error 13) while looking for drain_file {path} after 10ms; nginx cannot look for the file\n"
            ),
        ),
        (
            Some(path),
            Some(false),
            "nginx may run on another machine, or in a container with its own directories\n".into(),
        ),
    ] {
        admin.set("/api/status", status_with(drain_file, draining));
        let run = drain(&[]).expect(1);
        assert!(run.stdout.ends_with(&want), "{want}: {run:?}");
        assert!(file.exists());
        let json = drain(&["--json"]).expect(1).json();
        assert_eq!(fields(&json), ["action", "draining", "error", "file", "not_ready_because", "ready"]);
        assert_eq!((&json["action"], &json["draining"]), (&json!("exists"), &json!(draining)));
        assert!(want.contains(json["error"].as_str().unwrap()), "{json}");
    }
    // An nginx from before `drain_file`.
    admin.set("/api/status", status());
    assert!(drain(&[]).expect(1).stdout.ends_with("the module in nginx is too old to know drain_file\n"));
    // Still draining after `--undo`.
    admin.set("/api/status", status_with(Some(path), Some(true)));
    let run = drain(&["--undo"]).expect(1);
    assert!(
        run.stdout.starts_with(&format!("removed {path}, but /ready of table tools answers 503: draining")),
        "{run:?}"
    );
    // No longer draining, and not ready all the same.
    let mut unready = status_with(Some(path), Some(false));
    unready["ready"] = false.into();
    unready["not_ready_because"] = "the table was never loaded".into();
    admin.set("/api/status", unready);
    let want = format!("absent {path}; /ready of table tools answers 503: the table was never loaded\n");
    assert_eq!(drain(&["--undo"]).expect(1).stdout, want);
}

#[test]
fn the_server_at_admin_chooses_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, other) = (dir.path().join("out-of-service"), dir.path().join("other"));
    fs::write(&other, "x").unwrap();
    let admin = FakeAdmin::start();
    admin.set("/api/status", status_with(other.to_str(), Some(false)));
    let args = |undo: bool| {
        let words = ["drain", "--wait", "10ms", "--file", file.to_str().unwrap()];
        words.into_iter().chain(undo.then_some("--undo")).collect::<Vec<_>>()
    };
    ask(&admin, &args(false)).expect(1);
    ask(&admin, &args(true)).expect(0);
    assert_eq!(fs::read(&other).unwrap(), b"x");
}

#[test]
fn the_file_is_changed_without_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out-of-service");
    let path = file.to_str().unwrap();
    let drain = |address: SocketAddr, args: &[&str]| {
        let args: Vec<_> = ["drain", "--file", path, "--wait", "10ms"].iter().chain(args).copied().collect();
        finish(command(&args).env("URLPROXYCTL_ADMIN", format!("http://{address}/")))
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = drain(closed, &[]).expect(2);
    assert!(run.stderr.contains(&format!("created {path}")) && run.stderr.contains("(--admin)"), "{run:?}");
    assert!(file.exists());
    let json = drain(closed, &["--json"]).expect(2).json();
    assert_eq!((&json["action"], &json["ready"]), (&json!("exists"), &Value::Null));
    assert!(json["error"].as_str().unwrap().contains("(--admin)"), "{json}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = drain(silent.local_addr().unwrap(), &["--undo"]).expect(2);
    assert!(run.stderr.contains(&format!("removed {path}")) && !file.exists(), "{run:?}");
    assert!(run.stderr.contains("nginx did not answer within 5s"), "{run:?}");
}

#[test]
fn a_file_that_cannot_be_changed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let admin = FakeAdmin::start();
    let path = dir.path().join("missing/out-of-service");
    let run = ask(&admin, &["drain", "--file", path.to_str().unwrap()]).expect(2);
    let want = format!(
        "No such file or directory (os error 2) while creating the drain file {path:?}, expected its directory to exist, and to run \
         on nginx's machine, as root"
    );
    assert!(run.stderr.contains(&want), "{run:?}");
    let run = ask(&admin, &["drain", "--undo", "--file", dir.path().to_str().unwrap()]).expect(2);
    assert!(run.stderr.contains("while removing the drain file"), "{run:?}");
    assert!(dir.path().is_dir() && admin.asked().is_empty());
    ask(&admin, &["drain", "--wait", "0"]).expect(64);
    ask(&admin, &["drain", "--file", ""]).expect(64);
}
