//! portgrabber and its companion, and portreleaser where the queue's epilog knows nothing of the job.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use super::job::{
    GRABBER, NO_TOOL, RELEASER, UNREGISTER, active, companion_of, file_of, grabber, group_of, is_claimed, is_gone,
    kill, number_after, output, port_of, server,
};
use crate::listener::{Listener, identd_of};
use crate::proxy::Proxy;
use crate::support::need::need_root;
use crate::support::port::free_port;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

#[test]
fn a_grabbed_port_is_registered_while_the_command_listens() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &[]);
    // It begins to listen when it is told to.
    let script =
        "echo port $PORT $TOOL_WEB_PORT $#: $*; trap 'kill $!' USR1; sleep 1000 & wait; exec perl -e \"$0\" 0.0.0.0";
    let command = ["sh", "-c", script, super::job::SERVER, "--a", "b c"];
    let mut job = grabber(active(&[listener.address]), &["--canonical"], &command);
    let port = u16::try_from(number_after(&job, "port ")).unwrap();
    job.wait_for_line(&[&format!("port {port} {port} 3: --a b c {port}")]);
    assert!(is_claimed(port));
    wait_for("a companion", || companion_of(port).is_some());
    let companion = companion_of(port).expect("just seen");
    assert_eq!(group_of(companion), group_of(job.pid()), "Grid Engine finds it");
    let stat = fs::read_to_string(format!("/proc/{companion}/stat")).unwrap();
    let parent: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    assert_ne!(parent, job.pid(), "the command has no child that it does not know");
    assert_eq!(fs::read_link(format!("/proc/{companion}/cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(redis.cli(&["KEYS", "prefix:*"]), "", "nothing listens yet");
    job.signal("USR1");
    assert_eq!(port_of(&job), port);
    let url = format!("http://127.0.0.1:{port}");
    job.wait_for_line(&["INFO registered", &url]);
    assert_eq!(redis.cli(&["HGET", "prefix:hello", ".*"]), url);
    assert_eq!(redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.toolforge.org");
    // It counts for the job's h_vmem.
    let status = fs::read_to_string(format!("/proc/{companion}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.split_whitespace().next()).unwrap();
    assert!(peak.parse::<u64>().unwrap() < 64 << 10, "{peak} KiB of address space");
    kill(job.pid(), "KILL");
    assert_eq!(job.wait_for_end(), 137, "nothing is between");
    wait_for("the end of the route", || redis.cli(&["KEYS", "prefix:*"]).is_empty());
    wait_for("the end of the companion", || is_gone(companion));
    assert!(!is_claimed(port));
}

#[test]
fn another_users_server_on_a_grabbed_port_is_not_registered() {
    if !need_root() {
        return;
    }
    let proxy = Proxy::agreeing();
    let somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut job = grabber(active(&[proxy.address]), &[], &[&somebody[..], &server("0.0.0.0")].concat());
    let port = port_of(&job);
    job.wait_for_line(&[&format!("WARN port {port} is listened on by another user, uid 65534: not registered")]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    assert_eq!(proxy.heard(), [""; 0]);
}

#[test]
fn a_proxy_that_cannot_be_told_does_not_end_a_grabbers_command() {
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (agreeing, refusing) = (Proxy::agreeing(), Proxy::start(|_| NO_TOOL.into()));
    let file = active(&[down, refusing.address, agreeing.address]);
    let mut job = grabber(file, &[], &server("0.0.0.0"));
    let port = port_of(&job);
    job.wait_for_line(&["WARN", "Connection refused", &down.to_string(), "trying again"]);
    job.wait_for_line(&["ERROR", NO_TOOL, &refusing.address.to_string(), "not registered there"]);
    agreeing.wait_for(&[&agreeing.registration(port)]);
    let late = Proxy::start_at(down, |_| "ok".into()).unwrap();
    late.wait_for(&[&late.registration(port)]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    for proxy in [&agreeing, &late] {
        proxy.wait_for(&[&proxy.registration(port), &proxy.unregistration(port)]);
    }
    assert_eq!(refusing.heard().len(), 1);
}

#[test]
fn a_command_that_outlives_its_signal_is_registered_again() {
    let proxy = Proxy::agreeing();
    let options = ["--renew-interval", "300ms"];
    let mut job = grabber(active(&[proxy.address]), &options, &server("0.0.0.0"));
    let port = port_of(&job);
    wait_for("registered", || proxy.count("register\n") == 1);
    wait_for("a companion", || companion_of(port).is_some());
    let companion = companion_of(port).expect("just seen");
    // What goes to the process group goes to both.
    for signal in ["USR1", "USR2"] {
        kill(companion, signal);
    }
    wait_for("renewed", || proxy.count("renew\n") >= 1);
    kill(companion, "INT");
    wait_for("unregistered", || proxy.count(&proxy.unregistration(port)) == 1);
    wait_for("registered again", || proxy.count("register\n") == 2);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    wait_for("unregistered", || proxy.count(&proxy.unregistration(port)) == 2);
    wait_for("the end of the companion", || is_gone(companion));
}

#[test]
fn a_grabber_without_a_command_registers_nothing() {
    for (command, want) in [("/nowhere/at/all", 127), ("/etc/passwd", 126)] {
        let proxy = Proxy::agreeing();
        let file = active(&[proxy.address]);
        let path = file.path().to_str().unwrap();
        // Its end is the companion's, too: both have standard error.
        let (status, _, error) = output(&[GRABBER, "--active-proxy-file", path, "hello", command]);
        assert_eq!(status, Some(want), "{error}");
        assert!(error.contains(&format!("while starting {command:?}")), "{error}");
        assert_eq!(proxy.heard(), [""; 0]);
    }
}

#[test]
fn a_grabbers_parent_that_ignores_its_children_changes_nothing() {
    let nobody = file_of("");
    let script = r#"$SIG{CHLD} = "IGNORE"; exec @ARGV"#;
    let path = nobody.path().to_str().unwrap();
    let command = ["perl", "-e", script, GRABBER, "--active-proxy-file", path, "hello", "sh", "-c", "exit 3"];
    assert_eq!(output(&command).0, Some(3));
}

#[test]
fn a_queue_does_not_suffer_from_a_proxy_that_is_down() {
    let agreeing = Proxy::agreeing();
    let failing = Proxy::start(|_| "fail".into());
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    for (other, why) in [(down, "Connection refused"), (failing.address, "answered \"fail\"")] {
        let file = active(&[other, agreeing.address]);
        let path = file.path().to_str().unwrap();
        for (options, want) in [(&[][..], 0), (&["--strict"], 1)] {
            let (status, _, error) = output(&[&[RELEASER, "--active-proxy-file", path], options].concat());
            assert_eq!(status, Some(want), "{error}");
            assert!(error.contains(&format!("while unregistering from {other}")) && error.contains(why), "{error}");
            assert!(error.contains(&format!("unregistered from {}", agreeing.address)), "{error}");
        }
    }
    assert_eq!(agreeing.heard(), [UNREGISTER; 4]);
    assert!(failing.heard().len() >= 6, "tried again: {:?}", failing.heard());
    let nobody = file_of("\n");
    let (status, _, error) = output(&[RELEASER, "--strict", "--active-proxy-file", nobody.path().to_str().unwrap()]);
    assert!(status == Some(0) && error.contains("nothing to unregister"), "{error}");
}
