//! Renewals, and changes of the active-proxy file.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::job::{Job, NO_TOOL, RELEASER, UNKNOWN, UNREGISTER, active, file_of, grabber, port_of, runner, server};
use crate::listener::{Listener, identd_of};
use crate::proxy::Proxy;
use crate::support::daemon::Daemon;
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

const FREQUENT_RENEWALS: [&str; 2] = ["--renew-interval", "100ms"];

#[test]
fn lost_routes_are_restored_by_renewal() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &[]);
    for (start, options, host) in [
        (runner as fn(_, &[&str], &[&str]) -> _, &[][..], ""),
        (runner, &["--canonical"], "hello.toolforge.org"),
        (grabber, &["--canonical"], "hello.toolforge.org"),
    ] {
        let options = [&FREQUENT_RENEWALS, options].concat();
        let job = start(active(&[listener.address]), &options, &server("0.0.0.0"));
        let url = format!("http://127.0.0.1:{}", port_of(&job));
        let is_routed = || {
            redis.cli(&["HGET", "prefix:hello", ".*"]) == url && redis.cli(&["HGET", "redirect:hello", ".*"]) == host
        };
        wait_for("the route", is_routed);
        for _ in 0..2 {
            redis.cli(&["FLUSHALL"]);
            wait_for("the route after FLUSHALL", is_routed);
        }
        job.signal("TERM");
        wait_for("the end of the route", || redis.cli(&["EXISTS", "prefix:hello"]) == "0");
    }
}

#[test]
fn newer_job_keeps_its_route_until_it_ends() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &[]);
    let older = runner(active(&[listener.address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    older.wait_for_line(&["INFO registered"]);
    let url = |job: &Job| format!("http://127.0.0.1:{}", port_of(job));
    let route = || redis.cli(&["HGET", "prefix:hello", ".*"]);
    let mut newer = runner(active(&[listener.address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    wait_for("the newer one's route", || route() == url(&newer));
    older.wait_for_line(&["INFO", "refused to renew; it has a newer route of this tool"]);
    assert_eq!(route(), url(&newer));
    newer.signal("TERM");
    newer.wait_for_end();
    wait_for("the older one's route", || route() == url(&older));
    older.wait_for_line(&["INFO", "works again"]);
    assert_eq!(older.log().matches("has a newer route").count(), 1);
}

#[test]
fn old_proxy_is_registered_with_once() {
    let proxy = Proxy::old(|_| "ok".into());
    let mut job = runner(active(&[proxy.address]), &["--renew-interval", "20ms"], &server("0.0.0.0"));
    let register = proxy.registration(port_of(&job));
    wait_for("three renewals", || proxy.count("renew\n") >= 3);
    job.wait_for_line(&["INFO", "does not support renew"]);
    job.signal("TERM");
    job.wait_for_end();
    assert_eq!(job.log().matches("does not support renew").count(), 1);
    let received: Vec<_> = proxy.received_once().into_iter().filter(|command| command != "renew\n").collect();
    assert_eq!(received, [&register, UNKNOWN, UNREGISTER]);
}

/// proxylistener closes so when it evicts a client that pauses.
#[test]
fn impatient_proxy_gets_the_command_without_a_pause() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, commands) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut received = [0; 512];
            let length = stream.read(&mut received).unwrap_or(0);
            let received = String::from_utf8_lossy(&received[..length]).into_owned();
            if received.matches('\n').count() == 3 {
                let _ = stream.write_all(b"ok");
                let _ = sender.send(received);
            }
        }
    });
    let mut job = runner(active(&[address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    let url = format!("\n.*\nhttp://127.0.0.1:{}\n", port_of(&job));
    let next_command = || commands.recv_timeout(SOON).unwrap();
    assert_eq!((next_command(), next_command()), (format!("register{url}"), format!("renew{url}")));
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    wait_for("the end of the route", || next_command() == format!("unregisterUrl{url}"));
    // The epilog knows nothing about the proxy yet.
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("urlproxy-registered-7"), format!("{address} http://127.0.0.1:1\n")).unwrap();
    let variables = [("JOB_ID", "7"), ("TMPDIR", directory.path().to_str().unwrap())];
    let mut releaser = Daemon::start(&[RELEASER, "--strict"], &variables);
    assert_eq!((releaser.wait_for_end(), next_command()), (0, "unregisterUrl\n.*\nhttp://127.0.0.1:1\n".into()));
}

#[test]
fn refused_renewal_is_retried_and_logged_once() {
    let is_bad = Arc::new(AtomicBool::new(false));
    let now_bad = Arc::clone(&is_bad);
    let answer = move |command: &str| {
        if command.starts_with("renew") && now_bad.load(Relaxed) { "fail".into() } else { String::from("ok") }
    };
    let proxy = Proxy::start(answer);
    let job = runner(active(&[proxy.address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    wait_for("a renewal", || proxy.count("renew\n") >= 1);
    is_bad.store(true, Relaxed);
    job.wait_for_line(&["INFO", "refused to renew; it has a newer route of this tool"]);
    let count = proxy.count("renew\n");
    wait_for("renewals", || proxy.count("renew\n") >= count + 3);
    is_bad.store(false, Relaxed);
    job.wait_for_line(&["INFO renewal with", "works again"]);
    assert_eq!(job.log().matches("has a newer route").count(), 1);
    assert_eq!(proxy.count("register\n"), 1);
}

#[test]
fn stopped_server_is_not_renewed() {
    let proxy = Proxy::agreeing();
    let job = runner(active(&[proxy.address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    wait_for("a renewal", || proxy.count("renew\n") >= 1);
    job.signal("USR2");
    job.wait_for_line(&["WARN nothing listens on port", "while renewing"]);
    let count = proxy.count("renew\n");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(proxy.count("renew\n"), count);
}

#[test]
fn added_and_removed_proxies_are_followed() {
    for is_old in [false, true] {
        let new = || if is_old { Proxy::old(|_| "ok".into()) } else { Proxy::agreeing() };
        let (stays, moves) = (new(), new());
        let job = runner(active(&[stays.address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
        let port = port_of(&job);
        wait_for("registered", || stays.count("register\n") == 1);
        let (one, both) = (format!("{}\n", stays.address), format!("{}\n{}\n", stays.address, moves.address));
        for round in 1..=2 {
            fs::write(job.file.path(), &both).unwrap();
            wait_for("registered with the new one", || moves.count(&moves.registration(port)) == round);
            job.wait_for_line(&["INFO registered", &moves.address.to_string()]);
            fs::write(job.file.path(), &one).unwrap();
            let unregister = if is_old { UNREGISTER.into() } else { moves.unregistration(port) };
            wait_for("unregistered from it", || moves.count(&unregister) == round);
        }
        assert_eq!(stays.count("register\n"), 1);
        assert_eq!(stays.count("unregister"), 0);
    }
}

#[test]
fn unreadable_file_keeps_the_proxies() {
    let proxy = Proxy::agreeing();
    let job = runner(active(&[proxy.address]), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    let more = |count: usize| {
        let until = proxy.count("renew\n") + count;
        wait_for("renewals", || proxy.count("renew\n") >= until);
    };
    more(1);
    fs::write(job.file.path(), "not good\n").unwrap();
    job.wait_for_line(&["WARN", "line 1: invalid proxy \"not good\"", "keeping the previous proxies"]);
    fs::remove_file(job.file.path()).unwrap();
    more(5);
    assert_eq!(job.log().matches("keeping the previous proxies").count(), 1);
    fs::write(job.file.path(), format!("{}\n", proxy.address)).unwrap();
    job.wait_for_line(&["INFO", "is readable again"]);
    assert_eq!((proxy.count("register\n"), proxy.count("unregister")), (1, 0));
}

#[test]
fn refusal_of_an_added_proxy_does_not_end_the_command() {
    let (first, second) = (Proxy::agreeing(), Proxy::start(|_| NO_TOOL.into()));
    let job = runner(file_of(""), &FREQUENT_RENEWALS, &server("0.0.0.0"));
    let port = port_of(&job);
    fs::write(job.file.path(), format!("{}\n{}\n", first.address, second.address)).unwrap();
    wait_for("registered", || first.received().contains(&first.registration(port)));
    job.wait_for_line(&["ERROR", NO_TOOL, "not registered there"]);
    wait_for("renewed", || first.count("renew\n") >= 2);
    assert_eq!(second.count("register\n"), 1);
}
