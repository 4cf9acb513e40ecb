//! The active proxy moves to another host, and Redis to another master.

use std::fs;
use std::net::Ipv4Addr;

use crate::site::{Answer, Proxy, Site};
use crate::support::redis::RedisServer;
use crate::support::sentinel::CutOff;
use crate::support::wait::wait_for;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Whether the list of the proxy in use has the tool, as a dry run shows it.
fn listed(site: &Site, args: &[&str]) -> String {
    let ended = site.once(&[args, &["--dry-run"]].concat());
    ended.line("hello")[3].clone()
}

#[test]
fn next_active_proxy_is_asked_when_the_first_one_cannot_say() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.set_jobs(&[("hello", "r", 1000)]);
    let first = Proxy::start(FIRST, 0);
    let second = Proxy::start(SECOND, first.port);
    let (url, file) = (format!("http://HOST:{}/list", first.port), site.text("active-proxy"));
    let args = ["--list-url", &url, "--active-proxy-file", &file, "--list-timeout", "500ms", "--max-list-age", "60s"];
    let both = |one: Ipv4Addr, other: Ipv4Addr| fs::write(&file, format!("{one}\n{other}\n")).unwrap();
    both(FIRST, SECOND);
    first.set_list(&["elsewhere"], "0");
    second.set_list(&["hello"], "0");
    assert_eq!(listed(&site, &args), "no", "the first one's list counts");
    // A proxy that hangs, has loaded no routes, lost Redis long ago, or is not nginx.
    let unusable = |answer: &str| Answer::Bytes(answer.as_bytes().to_vec());
    for answer in [
        Answer::Silence,
        unusable("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
        unusable(
            "HTTP/1.1 200 OK\r\nAge: 61\r\nContent-Length: 40\r\n\r\n{\"elsewhere\":{\"status\":\"active\"}}        ",
        ),
        unusable("SSH-2.0\r\n"),
        unusable(""),
    ] {
        first.set(answer.clone());
        assert_eq!(listed(&site, &args), "yes", "{answer:?}");
    }
    // The address moves: the same order, or another one.
    first.set_list(&["elsewhere"], "0");
    both(SECOND, FIRST);
    assert_eq!(listed(&site, &args), "yes");
    second.set(Answer::Silence);
    assert_eq!(listed(&site, &args), "no");
    first.set(Answer::Silence);
    assert_eq!(site.once(&args).status, 1, "nobody can say");
    assert!(site.starts().is_empty());
}

#[test]
fn daemon_follows_the_active_proxy_between_rounds() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.set_jobs(&[("hello", "r", 1000)]);
    let first = Proxy::start(FIRST, 0);
    let second = Proxy::start(SECOND, first.port);
    first.set_list(&["hello"], "0");
    second.set_list(&["hello"], "0");
    let (url, file) = (format!("http://HOST:{}/list", first.port), site.text("active-proxy"));
    fs::write(&file, format!("{FIRST}\n{SECOND}\n")).unwrap();
    let args = ["--list-url", &url, "--active-proxy-file", &file, "--list-timeout", "500ms", "--interval", "50ms"];
    let daemon = site.daemon(&args, &[]);
    wait_for("rounds with the first", || first.asked() >= 2);
    assert_eq!(second.asked(), 0);
    first.set(Answer::Bytes(Vec::new()));
    wait_for("rounds with the second", || second.asked() >= 2);
    assert!(!daemon.log().contains("round suspended"), "{}", daemon.log());
    first.set_list(&["hello"], "0");
    let before = first.asked();
    wait_for("rounds with the first again", || first.asked() >= before + 3);
    assert!(site.starts().is_empty(), "no web service was restarted");
}

#[test]
fn history_and_lock_follow_the_master() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let servers = CutOff::start();
    let url = servers.url();
    let args = ["--state", "redis", "--redis", &url];
    let daemon = site.daemon(&[&args[..], &["--interval", "100ms"]].concat(), &[]);
    wait_for("three restarts", || site.starts().len() == 3);
    let restarts = |server: &RedisServer| server.cli(&["HGET", "monitor:starts", "hello"]).split(',').count();
    wait_for("their record", || restarts(&servers.former) == 3);
    // The new master has neither the lock nor the restarts.
    servers.fail_over();
    wait_for("the record in the new master", || restarts(&servers.promoted) == 3);
    let holder = servers.promoted.cli(&["GET", "monitor:lock"]);
    assert_eq!(holder, servers.former.cli(&["GET", "monitor:lock"]));
    assert_eq!(site.once(&args).status, 1, "another one stands by");
    assert_eq!(site.starts().len(), 3, "the limit holds: {}", daemon.log());
}

#[test]
fn monitor_whose_lock_was_lost_restarts_nothing_beside_the_new_holder() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let servers = CutOff::start();
    let url = servers.url();
    let args = ["--state", "redis", "--redis", &url, "--interval", "100ms"];
    site.set_jobs(&[("hello", "qw", 1)]);
    let daemon = site.daemon(&args, &[]);
    wait_for("a round", || servers.former.cli(&["EXISTS", "monitor:rounds"]) == "1");
    // In the new master another monitor holds the lock.
    servers.promoted.cli(&["SET", "monitor:lock", "elsewhere:1:2", "PX", "60000"]);
    servers.fail_over();
    daemon.wait_for_line(&["ERROR round suspended", "elsewhere:1:2 holds the lock in Redis"]);
    site.set_jobs(&[]);
    site.set_list(&["other"]);
    let asked = servers.sentinel.asked();
    wait_for("some rounds", || servers.sentinel.asked() >= asked + 3);
    assert!(site.starts().is_empty(), "{}", daemon.log());
    assert_eq!(servers.promoted.cli(&["GET", "monitor:lock"]), "elsewhere:1:2");
}

#[test]
fn too_few_replicas_suspend_the_round() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let redis = RedisServer::start(&["--min-replicas-to-write", "1"]);
    let ended = site.once(&["--state", "redis", "--redis", &redis.url()]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.log.contains("ERROR round suspended") && ended.log.contains("fewer replicas are connected to it than"),
        "{}",
        ended.log
    );
    assert!(site.starts().is_empty());
}
