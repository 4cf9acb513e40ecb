//! portreleaser in a queue's epilog, with and without a record of the job.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::job::{RELEASER, UNKNOWN, UNREGISTER, active, grabber_in, kill, port_of, runner_in, server, watcher_of};
use crate::proxy::Proxy;
use crate::support::port::free_port;

/// A job's number and its scratch directory.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn environment(&self) -> [(&'static str, &str); 3] {
        [("JOB_ID", "4711"), ("TMPDIR", self.0.path().to_str().unwrap()), ("SGE_TASK_ID", "undefined")]
    }

    fn record(&self) -> PathBuf {
        self.0.path().join("urlproxy-registered-4711")
    }

    /// The epilog's status and log.
    fn release(&self, active: &str, options: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(RELEASER);
        command.args(["--active-proxy-file", active]).args(options).envs(self.environment());
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn epilog_unregisters_exactly_what_a_killed_job_registered() {
    let (proxy, other) = (Proxy::agreeing(), Proxy::agreeing());
    for start in [runner_in, grabber_in] {
        let scratch = Scratch::new();
        let mut job = start(&scratch.environment(), active(&[proxy.address]), &[], &server("0.0.0.0"));
        let port = port_of(&job);
        job.wait_for_line(&["INFO registered"]);
        // Grid Engine kills all processes at once.
        if let Some(watcher) = watcher_of(port) {
            kill(watcher, "KILL");
        }
        job.signal("KILL");
        assert_eq!(job.wait_for_end(), 137);
        assert_eq!(proxy.count(&proxy.unregistration(port)), 0);
        // The record counts, not the active-proxy file.
        let file = active(&[other.address]);
        for count in 1..=2 {
            let (status, log) = scratch.release(file.path().to_str().unwrap(), &["--strict"]);
            assert!(status == Some(0) && log.contains(&format!("unregistered http://127.0.0.1:{port}")), "{log}");
            assert_eq!(proxy.count(&proxy.unregistration(port)), count);
        }
    }
    assert_eq!((proxy.count(UNREGISTER), other.received().len()), (0, 0));
}

#[test]
fn epilog_sends_nothing_after_a_clean_end() {
    let proxy = Proxy::old(|_| "ok".into());
    let file = active(&[proxy.address]);
    let path = file.path().to_str().unwrap().to_owned();
    let scratch = Scratch::new();
    let mut job = runner_in(&scratch.environment(), file, &[], &server("0.0.0.0"));
    job.wait_for_line(&["INFO registered"]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    let count = proxy.received().len();
    // Another job of the tool may run on this host by now, and an old proxy would remove its route.
    let (status, log) = scratch.release(&path, &["--strict"]);
    assert!(status == Some(0) && log.contains("the job left no registration"), "{log}");
    assert_eq!(proxy.received().len(), count);
}

#[test]
fn old_proxy_gets_the_old_command() {
    let proxy = Proxy::old(|_| "ok".into());
    let scratch = Scratch::new();
    fs::write(scratch.record(), format!("{} http://127.0.0.1:80\n", proxy.address)).unwrap();
    let (status, log) = scratch.release("/nowhere", &["--strict"]);
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(proxy.received_once(), [UNKNOWN, UNREGISTER]);
}

#[test]
fn epilog_without_a_record_sends_the_old_command() {
    let proxy = Proxy::agreeing();
    let file = active(&[proxy.address]);
    let path = file.path().to_str().unwrap();
    for (record, why) in [(None, "has no record"), (Some("rubbish\n"), "invalid record")] {
        let scratch = Scratch::new();
        if let Some(text) = record {
            fs::write(scratch.record(), text).unwrap();
        }
        let before = proxy.count(UNREGISTER);
        let (status, log) = scratch.release(path, &["--strict"]);
        assert!(status == Some(0) && log.contains(why), "{log}");
        assert_eq!(proxy.count(UNREGISTER), before + 1);
    }
}

#[test]
fn epilog_exits_0_when_a_recorded_proxy_is_down() {
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let failing = Proxy::start(|_| "fail".into());
    for proxy in [down, failing.address] {
        for (options, want) in [(&[][..], 0), (&["--strict"], 1)] {
            let scratch = Scratch::new();
            fs::write(scratch.record(), format!("{proxy} http://127.0.0.1:80\n")).unwrap();
            let (status, log) = scratch.release("/nowhere", options);
            assert_eq!(status, Some(want), "{log}");
            assert!(log.contains("while unregistering http://127.0.0.1:80 from"), "{log}");
        }
    }
    assert_eq!(failing.count(UNREGISTER), 0, "it knows the command");
}

#[test]
fn unwritable_scratch_directory_is_only_logged() {
    let proxy = Proxy::agreeing();
    let environment = [("JOB_ID", "4711"), ("TMPDIR", "/nowhere/at/all")];
    let job = runner_in(&environment, active(&[proxy.address]), &[], &server("0.0.0.0"));
    job.wait_for_line(&["WARN", "/nowhere/at/all", "portreleaser will not know"]);
    job.wait_for_line(&["INFO registered"]);
}
