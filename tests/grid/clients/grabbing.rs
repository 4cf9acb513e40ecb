//! portgrabber and its watcher process, and portreleaser without a record of the job.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use super::job::{
    GRABBER, NO_TOOL, RELEASER, UNREGISTER, active, file_of, grabber, group_of, is_gone, is_reserved, kill,
    number_after, output, port_of, server, watcher_of,
};
use crate::listener::{Listener, identd_of};
use crate::proxy::Proxy;
use crate::support::need::need_root;
use crate::support::port::free_port;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

#[test]
fn grabbed_port_is_registered_while_the_command_listens() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &[]);
    // The command listens after SIGUSR1.
    let script =
        "echo port $PORT $TOOL_WEB_PORT $#: $*; trap 'kill $!' USR1; sleep 1000 & wait; exec perl -e \"$0\" 0.0.0.0";
    let command = ["sh", "-c", script, super::job::SERVER, "--a", "b c"];
    let mut job = grabber(active(&[listener.address]), &["--canonical"], &command);
    let port = u16::try_from(number_after(&job, "port ")).unwrap();
    job.wait_for_line(&[&format!("port {port} {port} 3: --a b c {port}")]);
    assert!(is_reserved(port));
    wait_for("a watcher", || watcher_of(port).is_some());
    let watcher = watcher_of(port).expect("just seen");
    assert_eq!(group_of(watcher), group_of(job.pid()), "Grid Engine finds it");
    let stat = fs::read_to_string(format!("/proc/{watcher}/stat")).unwrap();
    let parent: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    assert_ne!(parent, job.pid(), "the command has no unexpected child");
    assert_eq!(fs::read_link(format!("/proc/{watcher}/cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(redis.cli(&["KEYS", "prefix:*"]), "", "nothing listens yet");
    job.signal("USR1");
    assert_eq!(port_of(&job), port);
    let url = format!("http://127.0.0.1:{port}");
    job.wait_for_line(&["INFO registered", &url]);
    assert_eq!(redis.cli(&["HGET", "prefix:hello", ".*"]), url);
    assert_eq!(redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.toolforge.org");
    // Its address space counts for the job's h_vmem.
    let status = fs::read_to_string(format!("/proc/{watcher}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.split_whitespace().next()).unwrap();
    // ThreadSanitizer takes terabytes.
    if std::env::var_os("TSAN_OPTIONS").is_none() {
        assert!(peak.parse::<u64>().unwrap() < 64 << 10, "{peak} KiB of address space");
    }
    kill(job.pid(), "KILL");
    assert_eq!(job.wait_for_end(), 137, "no process is in between");
    wait_for("the end of the route", || redis.cli(&["KEYS", "prefix:*"]).is_empty());
    wait_for("the end of the watcher", || is_gone(watcher));
    assert!(!is_reserved(port));
}

#[test]
fn foreign_server_on_a_grabbed_port_is_not_registered() {
    if !need_root() {
        return;
    }
    let proxy = Proxy::agreeing();
    let other_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut job = grabber(active(&[proxy.address]), &[], &[&other_user[..], &server("0.0.0.0")].concat());
    let port = port_of(&job);
    job.wait_for_line(&[&format!("WARN port {port} is taken by a server of another user, uid 65534; not registered")]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    assert_eq!(proxy.received(), [""; 0]);
}

#[test]
fn failed_registration_does_not_end_a_grabbers_command() {
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (agreeing, refusing) = (Proxy::agreeing(), Proxy::start(|_| NO_TOOL.into()));
    let file = active(&[down, refusing.address, agreeing.address]);
    let mut job = grabber(file, &[], &server("0.0.0.0"));
    let port = port_of(&job);
    job.wait_for_line(&["WARN", "Connection refused", &down.to_string(), "retrying"]);
    job.wait_for_line(&["ERROR", NO_TOOL, &refusing.address.to_string(), "not registered there"]);
    agreeing.wait_for(&[&agreeing.registration(port)]);
    let late = Proxy::start_at(down, |_| "ok".into()).unwrap();
    late.wait_for(&[&late.registration(port)]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    for proxy in [&agreeing, &late] {
        proxy.wait_for(&[&proxy.registration(port), &proxy.unregistration(port)]);
    }
    assert_eq!(refusing.received().len(), 1);
}

#[test]
fn command_that_survives_a_signal_is_registered_again() {
    let proxy = Proxy::agreeing();
    let options = ["--renew-interval", "300ms"];
    let mut job = grabber(active(&[proxy.address]), &options, &server("0.0.0.0"));
    let port = port_of(&job);
    wait_for("registered", || proxy.count("register\n") == 1);
    wait_for("a watcher", || watcher_of(port).is_some());
    let watcher = watcher_of(port).expect("just seen");
    // Signals to the process group reach both processes.
    for signal in ["USR1", "USR2"] {
        kill(watcher, signal);
    }
    wait_for("renewed", || proxy.count("renew\n") >= 1);
    kill(watcher, "INT");
    wait_for("unregistered", || proxy.count(&proxy.unregistration(port)) == 1);
    wait_for("registered again", || proxy.count("register\n") == 2);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    wait_for("unregistered", || proxy.count(&proxy.unregistration(port)) == 2);
    wait_for("the end of the watcher", || is_gone(watcher));
}

#[test]
fn grabber_without_a_valid_command_registers_nothing() {
    for (command, want) in [("/nowhere/at/all", 127), ("/etc/passwd", 126)] {
        let proxy = Proxy::agreeing();
        let file = active(&[proxy.address]);
        let path = file.path().to_str().unwrap();
        // `output` waits for the watcher too: both have standard error.
        let (status, _, error) = output(&[GRABBER, "--active-proxy-file", path, "hello", command]);
        assert_eq!(status, Some(want), "{error}");
        assert!(error.contains(&format!("while starting {command:?}")), "{error}");
        assert_eq!(proxy.received(), [""; 0]);
    }
}

#[test]
fn grabber_works_when_its_parent_ignores_sigchld() {
    let empty = file_of("");
    let script = r#"$SIG{CHLD} = "IGNORE"; exec @ARGV"#;
    let path = empty.path().to_str().unwrap();
    let command = ["perl", "-e", script, GRABBER, "--active-proxy-file", path, "hello", "sh", "-c", "exit 3"];
    assert_eq!(output(&command).0, Some(3));
}

#[test]
fn releaser_exits_0_when_a_proxy_is_down() {
    let agreeing = Proxy::agreeing();
    let failing = Proxy::start(|_| "fail".into());
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    for (other, why) in [(down, "Connection refused"), (failing.address, "reply \"fail\"")] {
        let file = active(&[other, agreeing.address]);
        let path = file.path().to_str().unwrap();
        for (options, want) in [(&[][..], 0), (&["--strict"], 1)] {
            let (status, _, error) = output(&[&[RELEASER, "--active-proxy-file", path], options].concat());
            assert_eq!(status, Some(want), "{error}");
            assert!(error.contains(&format!("while unregistering from {other}")) && error.contains(why), "{error}");
            assert!(error.contains(&format!("unregistered from {}", agreeing.address)), "{error}");
        }
    }
    assert_eq!(agreeing.received(), [UNREGISTER; 4]);
    assert!(failing.received().len() >= 6, "tried again: {:?}", failing.received());
    let empty = file_of("\n");
    let (status, _, error) = output(&[RELEASER, "--strict", "--active-proxy-file", empty.path().to_str().unwrap()]);
    assert!(status == Some(0) && error.contains("nothing to unregister"), "{error}");
}
