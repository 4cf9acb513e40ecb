//! What each action does and prints on the grid, word by word: scripts look for it.

use std::fs;

use crate::site::{Ended, Site, child_output};
use crate::support::wait::wait_for;

#[test]
fn start_status_restart_and_stop_print_what_scripts_look_for() {
    let Some(site) = Site::new() else { return };
    site.configure("public_domain: example.org");
    let stopped = site.run(&["status"]).succeeds();
    assert_eq!((&*stopped.answer, &*stopped.messages), ("Your webservice is not running\n", ""));

    let started = site.run(&["--backend=gridengine", "lighttpd", "start"]).succeeds();
    assert_eq!(started.lines(), ["Starting webservice", "Your webservice is at https://hello.example.org/"]);
    assert_eq!(started.answer, "");
    assert_eq!(site.job_names(), ["lighttpd-hello"]);

    let status = site.run(&["status"]).succeeds();
    assert_eq!(status.answer, "Your webservice of type lighttpd is running on backend gridengine\n");
    assert_eq!(status.messages, "");

    let again = site.run(&["start"]);
    assert_eq!((again.status, again.lines()[0], &*again.answer), (1, "Your job is already running", ""));
    let other = site.run(&["generic", "start", "x"]).fails("Your job is already running\n");
    assert!(other.messages.contains("of type lighttpd"), "{other:?}");
    assert_eq!(site.jobs().len(), 1);

    site.forget_grid_log();
    let restarted = site.run(&["restart"]).succeeds();
    assert!(restarted.messages.starts_with("Restarting..."), "{restarted:?}");
    assert_eq!(restarted.lines()[0], "Restarting");
    assert_eq!(site.grid_log(), ["deleted lighttpd-hello", "submitted lighttpd-hello"]);

    let stopped = site.run(&["stop"]).succeeds();
    assert_eq!((stopped.lines(), &*stopped.answer), (vec!["Stopping webservice"], ""));
    assert_eq!(site.jobs().len(), 0);

    let stopped = site.run(&["stop"]).succeeds();
    assert_eq!((&*stopped.answer, &*stopped.messages), ("Your webservice is not running\n", ""));

    let restarted = site.run(&["--backend=gridengine", "restart"]).succeeds();
    assert_eq!(restarted.lines()[..2], ["Your job is not running, starting", "Starting webservice"]);
    assert_eq!(site.job_names(), ["lighttpd-hello"]);
}

#[test]
fn status_is_json_on_request() {
    let Some(site) = Site::new() else { return };
    site.configure("public_url: 'https://tools.example.org/{tool}/'");
    let answer = |site: &Site| -> serde_json::Value {
        serde_json::from_str(&site.run(&["status", "--json"]).succeeds().answer).unwrap()
    };
    let url = "https://tools.example.org/hello/";
    assert_eq!(
        answer(&site),
        serde_json::json!({"tool": "hello", "backend": "gridengine", "state": "stopped", "running": false, "type": null,
            "reason": null, "url": url})
    );
    site.run(&["start"]).succeeds();
    assert_eq!(
        answer(&site),
        serde_json::json!({"tool": "hello", "backend": "gridengine", "state": "running", "running": true, "type": "lighttpd",
            "reason": null, "url": url})
    );
    fs::write(site.path("grid/explanation"), "scheduling info:    cannot run because of \x1b[31m\n").unwrap();
    site.set_job_state("qw");
    let text = site.run(&["status", "--json"]).succeeds().answer;
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(answer(&site)["reason"], "cannot run because of \x1b[31m");
    assert_eq!(answer(&site)["state"], "pending");
}

#[test]
fn each_state_of_the_job_has_its_words() {
    let Some(site) = Site::new() else { return };
    site.run(&["start"]).succeeds();
    fs::write(site.path("grid/explanation"), "error reason    1:   can't open output file\n").unwrap();
    for (letters, want) in [
        ("r", "Your webservice of type lighttpd is running on backend gridengine"),
        ("Rr", "Your webservice of type lighttpd is running on backend gridengine"),
        ("qw", "Your webservice of type lighttpd waits to run on backend gridengine: can't open output file"),
        ("dr", "Your webservice of type lighttpd is being stopped on backend gridengine"),
        (
            "Eqw",
            "Your webservice of type lighttpd has failed on backend gridengine: can't open output file; `webservice restart` tries again",
        ),
    ] {
        site.set_job_state(letters);
        assert_eq!(site.run(&["status"]).succeeds().answer.trim_end(), want, "{letters}");
    }
}

#[test]
fn job_gets_every_byte_of_the_arguments() {
    let Some(site) = Site::new() else { return };
    fs::write(site.path("memory/hello.web-memlimit"), "6G\n").unwrap();
    let extra = ["-x", "a b", "'", "\"", "$HOME", "`id`", "*", "", "\\", "wîki 工具", "--", "--type"];
    let args = [&["--release", "bookworm", "generic", "start", "--"], &extra[..]].concat();
    site.run(&args).succeeds();
    let log = site.home("error.log").display().to_string();
    let config = site.path("webservice.yaml").display().to_string();
    let head = [
        "-clear",
        "-terse",
        "-b",
        "y",
        "-shell",
        "n",
        "-N",
        "generic-hello",
        "-q",
        "webgrid-generic",
        "-l",
        "h_vmem=6G,release=bookworm",
        "-o",
        &log,
        "-e",
        &log,
        "-i",
        "/dev/null",
        "/usr/bin/webservice-runner",
        "--register-proxy",
        "--config",
        &config,
        "--type",
        "generic",
        "--",
    ];
    assert_eq!(site.submitted(), [&head[..], &extra[..]].concat());

    // And again from the manifest.
    site.run(&["restart"]).succeeds();
    assert_eq!(site.submitted(), [&head[..], &extra[..]].concat());
}

#[test]
fn pending_job_is_no_failure() {
    let Some(site) = Site::new() else { return };
    site.set_state("qw");
    fs::write(
        site.path("grid/explanation"),
        "scheduling info:   cannot run in queue \"webgrid-lighttpd\" because it is full\n",
    )
    .unwrap();
    let pending = site.run(&["--timeout", "2s", "start"]).succeeds();
    assert!(pending.messages.contains("waits to run: cannot run in queue \"webgrid-lighttpd\""), "{pending:?}");
    assert!(pending.messages.starts_with("No backend is given, so your webservice runs on gridengine, the default."));
    assert!(pending.messages.contains("\nStarting webservice."), "a dot per second: {pending:?}");
    assert_eq!(site.run(&["start"]).lines()[0], "Your job is already running");
    assert!(site.manifest().contains(&"web: lighttpd".to_owned()));
}

#[test]
fn wait_ends_when_the_proxy_lists_the_tool() {
    let Some(site) = Site::new() else { return };
    site.set_list(&["hello"]);
    site.run(&["start", "--wait"]).succeeds();
    site.set_list(&["other"]);
    let late =
        site.run(&["restart", "--wait", "--timeout", "3s"]).fails("it runs, but is not registered with the proxy");
    assert!(late.messages.contains("must listen on the port in PORT"), "{late:?}");
    site.configure("list_url: http://127.0.0.1:1/list");
    let unknown = site.run(&["restart", "--wait", "--timeout", "3s"]).fails("no proxy says whether it is registered");
    assert!(unknown.messages.contains("Connection refused"), "{unknown:?}");
    site.configure("list_url: http://HOST:1/list\nactive_proxy_file: /nowhere");
    site.run(&["restart", "--wait", "--timeout", "3s"]).fails("\"/nowhere\"");
    site.configure("");
    site.set_list(&[]);
    site.hook(
        "qstat",
        "[ ! -e $DIR/grid/args-5 ] || touch $DIR/grid/seen; [ ! -e $DIR/grid/seen2 ] || rm -f $DIR/grid/job-*",
    );
    let mut child = site.begin(&["restart", "--wait", "--timeout", "60s"]);
    wait_for("the job was seen", || site.path("grid/seen").exists());
    fs::write(site.path("grid/seen2"), "").unwrap();
    let ended = Ended::of(child_output(&mut child));
    assert!(ended.status == 1 && ended.messages.contains("your webservice did not start"), "{ended:?}");
}

#[test]
fn logs_print_the_end_of_the_log() {
    let Some(site) = Site::new() else { return };
    site.run(&["logs"]).fails("there is no log");
    let lines: String = (1..=100).map(|n| format!("line {n}\n")).collect();
    site.write("error.log", lines);
    assert_eq!(site.run(&["logs", "--last", "2"]).succeeds().answer, "line 99\nline 100\n");
    let default = site.run(&["logs"]).succeeds().answer;
    assert_eq!((default.lines().count(), default.lines().next()), (50, Some("line 51")));
    site.write("error.log", b"raw \x1b[31m \xff\n");
    let output = site.command(&["logs"]).output().unwrap();
    assert_eq!(output.stdout, b"raw \x1b[31m \xff\n", "a pipe gets every byte");
}

#[test]
fn followed_log_goes_on_after_rotation_and_truncation() {
    use std::io::{BufRead, BufReader};
    let Some(site) = Site::new() else { return };
    site.write("error.log", "one\ntwo\n");
    let mut child = site.begin(&["logs", "-f", "-l", "1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "two");
    fs::write(site.home("error.log.new"), "rotated\n").unwrap();
    fs::rename(site.home("error.log.new"), site.home("error.log")).unwrap();
    assert_eq!(next(), "rotated");
    fs::write(site.home("error.log"), "cut\n").unwrap();
    assert_eq!(next(), "cut");
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn terminal_gets_one_live_line_and_no_control_characters() {
    let Some(site) = Site::new() else { return };
    site.set_state("qw");
    fs::write(site.path("grid/explanation"), "scheduling info:   cannot run: \x1b[31mred\n").unwrap();
    let started = site.run_on_terminal(&["--timeout", "3s", "start"]);
    assert_eq!(started.status, 0, "{started:?}");
    let line = started.answer.lines().find(|line| line.starts_with("Starting webservice")).expect("a line of progress");
    assert!(line.contains("\r\x1b[KStarting webservice (2 s: cannot run: \\u{1b}[31mred)"), "{line:?}");
    assert!(!started.answer.contains("\x1b[31m"), "{started:?}");
    site.write("error.log", "a\tb \x1b[31mred\n");
    assert_eq!(site.run_on_terminal(&["logs"]).answer, "a\tb \\u{1b}[31mred\r\n");
    site.write("error.log", "a\x1b]0;title\x07\n");
    site.set_job_state("r");
    site.hook("qstat", "rm -f $DIR/grid/job-*; printf 'dead \\033[2J\\n' >> $DIR/home/error.log");
    let failed = site.run_on_terminal(&["restart"]).answer;
    assert!(failed.contains("dead \\u{1b}[2J") && !failed.contains("\x1b[2J"), "{failed:?}");
}
