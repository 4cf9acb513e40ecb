//! ~/error.log.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::tool::Tool;

const COMPLAINT: [&str; 4] = ["--", "sh", "-c", "echo complaint >&2; echo answer"];

#[test]
fn errors_are_appended() {
    let Some(tool) = Tool::create() else { return };
    tool.write("error.log", "before\n");
    let ended = tool.run(&COMPLAINT);
    assert_eq!((ended.status, &*ended.out, &*ended.error), (Some(0), "answer\n", ""));
    let log = tool.read("error.log");
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0] == "before" && lines.contains(&"complaint"), "{log}");
    assert!(log.contains("INFO started") && log.contains("INFO command ended"), "{log}");
    let ended = tool.run(&[&["--no-error-log"][..], &COMPLAINT].concat());
    assert!(ended.error.contains("complaint") && tool.read("error.log") == log, "{ended:?}");
}

#[test]
fn log_that_is_standard_error_already_stays() {
    let Some(tool) = Tool::create() else { return };
    tool.write("error.log", "before\n");
    let command = tool.command(&COMPLAINT);
    let log = OpenOptions::new().append(true).open(tool.home().join("error.log")).unwrap();
    let status = Command::new(&command[0]).args(&command[1..]).stdout(Stdio::null()).stderr(log).status().unwrap();
    assert!(status.success());
    let log = tool.read("error.log");
    assert_eq!(log.matches("complaint\n").count(), 1, "{log}");
}

#[test]
fn unusable_log_is_reported_and_hangs_nothing() {
    let Some(tool) = Tool::with_programs(&["lighttpd", "php-cgi"]) else { return };
    tool.write("public_html/index.html", "front");
    let log = tool.home().join("error.log");
    for (what, why) in [
        ("fifo", "No such device or address"),
        ("directory", "Is a directory"),
        ("device", "not a regular file"),
        ("read-only", "Permission denied"),
        ("loop", "symbolic links"),
    ] {
        match what {
            "fifo" => tool.make_fifo("error.log"),
            "directory" => fs::create_dir(&log).unwrap(),
            "device" => symlink("/dev/null", &log).unwrap(),
            "read-only" => {
                fs::write(&log, "").unwrap();
                fs::set_permissions(&log, Permissions::from_mode(0o444)).unwrap();
            }
            _ => symlink("error.log", &log).unwrap(),
        }
        let ended = tool.run(&COMPLAINT);
        assert_eq!((ended.status, &*ended.out), (Some(0), "answer\n"), "{what}: {ended:?}");
        let error = &ended.error;
        assert!(error.contains("WARN") && error.contains(why) && error.contains("complaint\n"), "{what}: {error}");
        assert!(error.contains(&format!("while opening {log:?} for appending")), "{what}: {error}");
        // lighttpd writes a log of its own.
        let server = tool.start(&["--type", "lighttpd"]);
        assert_eq!(server.get("/"), (200, "front".into()), "{what}");
        drop(server);
        let _ = fs::remove_file(&log).or_else(|_| fs::remove_dir(&log));
    }
}

#[test]
fn linked_log_is_followed() {
    let Some(tool) = Tool::create() else { return };
    tool.write("logs/today", "");
    symlink("logs/today", tool.home().join("error.log")).unwrap();
    let ended = tool.run(&COMPLAINT);
    assert!(ended.error.is_empty() && tool.read("logs/today").contains("complaint"), "{ended:?}");
}
