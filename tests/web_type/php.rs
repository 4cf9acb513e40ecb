//! The type lighttpd, with PHP.

use std::fs;

use crate::support::wait::wait_for;
use crate::tool::{Running, Tool};

const PAGE: &str = r#"<?php
if (isset($_GET["file"])) header("X-Sendfile: " . $_GET["file"]);
echo "php ", $_SERVER["SCRIPT_NAME"], " ", $_SERVER["PATH_INFO"] ?? "", " ", getmypid();
if (isset($_GET["fail"])) error_log("complaint of php");
"#;

fn tool_with_page() -> Option<Tool> {
    let tool = Tool::with_programs(&["lighttpd", "php-cgi"])?;
    tool.write("public_html/index.php", PAGE);
    Some(tool)
}

fn started(tool: &Tool) -> Running {
    let server = tool.start(&["--type", "lighttpd"]);
    // Two processes with two children each.
    wait_for("six processes", || tool.processes_named("php-cgi").len() == 6);
    server
}

#[test]
fn pages_run_in_path_mode_and_on_the_own_host() {
    let Some(tool) = tool_with_page() else { return };
    let server = started(&tool);
    for (path, want) in [
        ("/hello/", "php /hello/index.php  "),
        ("/hello/index.php/more", "php /hello/index.php /more "),
        ("/", "php /index.php  "),
    ] {
        let (status, body) = server.get(path);
        assert!(status == 200 && body.starts_with(want), "{path}: {status} {body}");
    }
    server.get("/hello/?fail");
    wait_for("the log", || tool.read("error.log").contains("complaint of php"));
}

#[test]
fn sendfile_stays_below_the_home() {
    let Some(tool) = tool_with_page() else { return };
    tool.write("private/data.txt", "sent");
    let server = started(&tool);
    let home = tool.home().to_str().unwrap();
    assert_eq!(server.get(&format!("/hello/?file={home}/private/data.txt")), (200, "sent".into()));
    for outside in ["/etc/passwd".to_owned(), format!("{home}/../passwd")] {
        let (status, body) = server.get(&format!("/hello/?file={outside}"));
        assert!(status == 403 && !body.contains("root:"), "{outside}: {status} {body}");
    }
}

#[test]
fn sockets_are_private() {
    use std::os::unix::fs::PermissionsExt;

    let Some(tool) = tool_with_page() else { return };
    let _server = started(&tool);
    let directories: Vec<_> = fs::read_dir(tool.temporary()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(directories.len(), 1, "{directories:?}");
    assert_eq!(fs::metadata(&directories[0]).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(directories[0].join("php.socket-0").exists() && directories[0].join("server.conf").exists());
}

#[test]
fn nothing_is_left_after_any_end() {
    let Some(tool) = tool_with_page() else { return };
    for (signal, want) in [("TERM", 0), ("INT", 0), ("KILL", 137)] {
        let mut server = started(&tool);
        server.signal(signal);
        assert_eq!(server.wait_for_end(), want, "{signal}");
        tool.wait_for_nothing_left();
    }
    // php-cgi has left the process group of a killed lighttpd.
    let mut server = started(&tool);
    let lighttpd = tool.processes_named("lighttpd")[0];
    let pid = rustix::process::Pid::from_raw(lighttpd as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(server.wait_for_end(), 137);
    tool.wait_for_nothing_left();
}
