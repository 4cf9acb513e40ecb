//! How webservice-runner runs the command.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::job::{RUNNER, SERVER, active, file_of, group_of, is_gone, number_after, output, port_of, runner, server};
use crate::proxy::Proxy;
use crate::support::daemon::Daemon;
use crate::support::need::need_root;
use crate::support::program::copy_program;
use crate::support::wait::wait_for;

#[test]
fn user_signals_are_forwarded() {
    let job = runner(file_of(""), &[], &server("0.0.0.0"));
    port_of(&job);
    for signal in ["USR1", "USR2"] {
        job.signal(signal);
        job.wait_for_line(&[&format!("got {signal}")]);
    }
}

#[test]
fn command_runs_in_the_home_with_both_port_variables() {
    let home = output(&["sh", "-c", "getent passwd $(id -u) | cut -d: -f6"]).1;
    let (status, out, error) = output(&[RUNNER, "--no-error-log", "sh", "-c", "pwd; echo $PORT = $TOOL_WEB_PORT"]);
    let (directory, ports) = out.split_once('\n').expect("two lines");
    assert_eq!((status, directory), (Some(0), home.trim_end()), "{error}");
    let (port, same) = ports.trim_end().split_once(" = ").expect("two ports");
    assert!(!port.is_empty() && port == same, "{ports}");
}

#[test]
fn inaccessible_home_is_logged() {
    if !need_root() {
        return;
    }
    // Every user may run the copy.
    let program = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    copy_program(RUNNER, &program);
    // The home of uid 65534 is /nonexistent; the other uid has no account.
    for (uid, why) in
        [("65534", "while changing to the home \"/nonexistent\""), ("4000000", "uid 4000000 has no account")]
    {
        let reuid = format!("--reuid={uid}");
        let (status, out, error) = output(&[
            "env",
            "--chdir=/",
            "setpriv",
            &reuid,
            "--clear-groups",
            program.to_str().unwrap(),
            "--no-error-log",
            "pwd",
        ]);
        assert_eq!((status, &*out), (Some(0), "/\n"), "{error}");
        assert!(
            error.contains("WARN") && error.contains(why) && error.contains("running the command in \"/\""),
            "{error}"
        );
    }
}

#[test]
fn ignored_sighup_stays_ignored() {
    let script = format!("trap '' HUP; exec {RUNNER} --no-error-log perl -e \"$0\" 0.0.0.0");
    let job = Daemon::start(&["sh", "-c", &script, SERVER], &[]);
    port_of(&job);
    job.signal("HUP");
    // Had SIGHUP been forwarded, it would arrive before the second of these.
    for signal in ["USR1", "USR2"] {
        job.signal(signal);
        job.wait_for_line(&[&format!("got {signal}")]);
    }
    assert!(!job.log().contains("got HUP"));
}

#[test]
fn runner_works_when_its_parent_ignores_sigchld() {
    let script = r#"$SIG{CHLD} = "IGNORE"; exec @ARGV"#;
    assert_eq!(output(&["perl", "-e", script, RUNNER, "--no-error-log", "sh", "-c", "exit 3"]).0, Some(3));
}

#[test]
fn process_group_is_killed_after_the_grace_time() {
    let script = "trap '' TERM; sh -c 'echo grandchild $$; sleep 1000; :' & echo child $$; sleep 1000; sleep 1000";
    let mut job = runner(file_of(""), &["--grace", "300ms"], &["sh", "-c", script]);
    let pids = [number_after(&job, "grandchild "), number_after(&job, "child ")];
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 137);
    job.wait_for_line(&["WARN command still runs after 300ms; killing it"]);
    for pid in pids {
        wait_for("the end of all", || is_gone(pid));
    }
}

#[test]
fn leftover_processes_are_killed() {
    let grandchild = "trap '' HUP TERM USR1; echo grandchild $$; sleep 1000; :";
    let script = "trap 'exit 3' USR1; sh -c \"$0\" & wait; wait";
    let mut job = runner(file_of(""), &[], &["sh", "-c", script, grandchild]);
    let grandchild = number_after(&job, "grandchild ");
    let guard = group_of(grandchild);
    job.signal("USR1");
    assert_eq!(job.wait_for_end(), 3);
    assert!(is_gone(grandchild) && is_gone(guard));
}

#[test]
fn processes_die_with_a_killed_runner() {
    let proxy = Proxy::agreeing();
    let script =
        "trap '' HUP TERM USR1; sh -c 'echo grandchild $$; sleep 1000; :' & echo child $$; perl -e \"$0\" 0.0.0.0";
    let mut job = runner(active(&[proxy.address]), &[], &["sh", "-c", script, SERVER]);
    job.wait_for_line(&["INFO registered"]);
    let pids = [number_after(&job, "grandchild "), number_after(&job, "child ")];
    let guard = group_of(pids[0]);
    assert_eq!((guard, guard != pids[1]), (group_of(pids[1]), true));
    // An earlier forwarded signal changes nothing.
    job.signal("USR1");
    job.wait_for_line(&["got USR1"]);
    job.signal("KILL");
    assert_eq!(job.wait_for_end(), 137);
    for pid in [pids[0], pids[1], guard] {
        wait_for("the end of all", || is_gone(pid));
    }
    assert_eq!(proxy.received().len(), 1, "the runner was killed before it could unregister");
}

#[test]
fn group_leader_holds_no_file_of_the_job() {
    let job = runner(file_of(""), &[], &["sh", "-c", "echo child $$; sleep 1000; :"]);
    let child = number_after(&job, "child ");
    let guard = group_of(child);
    let files = |pid: u32| [0, 1, 2].map(|file| fs::read_link(format!("/proc/{pid}/fd/{file}")).unwrap());
    let of_the_job = files(child);
    for file in files(guard) {
        assert!(file == Path::new("/dev/null") || !of_the_job.contains(&file), "{file:?} of {of_the_job:?}");
    }
    assert_eq!(fs::read_link(format!("/proc/{guard}/cwd")).unwrap(), Path::new("/"));
}

#[test]
fn exit_status_is_the_commands() {
    let plain = file_of("echo hello\n");
    let plain = plain.path().to_str().unwrap();
    for (command, want) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -ABRT $$"], 134),
        (&["/nowhere/at/all"], 127),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
        (&[plain], 126),
    ] {
        let (status, _, error) = output(&[&[RUNNER, "--no-error-log"], command].concat());
        assert_eq!(status, Some(want), "{command:?}: {error}");
        assert_eq!(error.contains("ERROR"), want == 126 || want == 127, "{command:?}: {error}");
    }
}

#[test]
fn options_end_where_the_command_begins() {
    for (args, want) in [
        (&["--type", "generic", "echo", "-n", "--port", "--", "x"][..], "--port -- x"),
        (&["--type", "generic", "--", "echo", "-n", "--port", "--", "x"], "--port -- x"),
        (&["--type=generic", "--port=10001", "sh", "-c", "echo $PORT"], "10001\n"),
    ] {
        assert_eq!(output(&[&[RUNNER, "--no-error-log"], args].concat()).1, want, "{args:?}");
    }
}

#[test]
fn closed_log_does_not_end_the_runner() {
    let mut job = Command::new(RUNNER)
        .args(["--no-error-log", "sh", "-c", "read -r _; exit 3"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = String::new();
    BufReader::new(job.stderr.take().unwrap()).read_line(&mut begun).unwrap();
    assert!(begun.contains("started"), "{begun}");
    drop(job.stdin.take());
    assert_eq!(job.wait().unwrap().code(), Some(3));
}
