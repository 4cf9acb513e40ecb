//! A failover of Redis that loses what the former master has confirmed.

use crate::api_server::{ApiServer, web_service};
use crate::kube2proxy::{Kube2proxy, members, url_of};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{CutOff, clients};
use crate::support::wait::wait_for;

/// So long that only the new connection is a reason to compare.
const NO_RESYNC: [&str; 2] = ["--resync-interval", "1h"];

fn start(api: &ApiServer, site: &CutOff, extra_args: &[&str]) -> Kube2proxy {
    let url = site.url();
    Kube2proxy::start(api, &site.former, &[&["--redis", &url], &NO_RESYNC[..], extra_args].concat())
}

fn leads(replica: &Kube2proxy) -> bool {
    replica.metric("kube2proxy_leading") == 1.0
}

fn lock(redis: &RedisServer) -> String {
    redis.cli(&["GET", "k8s_lock"])
}

fn url(port: u16) -> String {
    format!("http://10.96.0.1:{port}")
}

#[test]
fn lost_writes_are_repeated_over_the_new_connection() {
    let (api, site) = (ApiServer::start(), CutOff::start());
    api.apply("changed", "changed", web_service("10.96.0.1", 80));
    api.apply("deleted", "deleted", web_service("10.96.0.2", 80));
    let kube2proxy = start(&api, &site, &[]);
    wait_for("registered", || members(&site.former).len() == 2);
    site.copy();
    // The new master will have none of these.
    api.apply("changed", "changed", web_service("10.96.0.1", 81));
    api.apply("added", "added", web_service("10.96.0.3", 80));
    api.delete("deleted", "deleted");
    let is_complete = |server: &RedisServer| {
        url_of(server, "changed") == url(81)
            && url_of(server, "added") == "http://10.96.0.3:80"
            && url_of(server, "deleted").is_empty()
    };
    wait_for("written", || is_complete(&site.former));
    assert_eq!(url_of(&site.promoted, "changed"), url(80));

    site.fail_over();
    let took = wait_for("the lost writes", || is_complete(&site.promoted));
    println!("lost writes are back {took:?} after Sentinel's word");
    assert_eq!(members(&site.promoted), ["added/added/.*", "changed/changed/.*"]);
    wait_for("no connection to the former master", || clients(&site.former) == 0);
    kube2proxy.wait_until_ready();
    assert!(leads(&kube2proxy));
}

#[test]
fn one_replica_leads_after_the_lock_was_lost() {
    let (api, site) = (ApiServer::start(), CutOff::start());
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    // The new master has neither the lock nor its number.
    site.copy();
    let first = start(&api, &site, &[]);
    let second = start(&api, &site, &[]);
    second.daemon.wait_for_line(&["INFO", "standing by"]);
    let held = lock(&site.former);
    site.fail_over();
    wait_for("the first holds it again", || lock(&site.promoted).split(' ').nth(1) == held.split(' ').nth(1));
    assert_ne!(lock(&site.promoted), held, "its late writes are refused");
    wait_for("the route", || url_of(&site.promoted, "hello") == url(80));
    for port in 81..85 {
        api.apply("hello", "hello", web_service("10.96.0.1", port));
        wait_for("a change", || url_of(&site.promoted, "hello") == url(port));
    }
    assert!(leads(&first) && !leads(&second), "{}", second.daemon.log());
    assert!(!second.daemon.log().contains("lock acquired"), "{}", second.daemon.log());
}

#[test]
fn lock_of_an_earlier_leader_in_the_new_master_is_waited_for() {
    let (api, site) = (ApiServer::start(), CutOff::start());
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let replicas = [start(&api, &site, &[]), start(&api, &site, &[])];
    let held = lock(&site.former);
    // The new master has an older state: nobody of today can renew this lock.
    site.promoted.cli(&["SET", "k8s_lock", "1 earlier", "PX", "4000"]);
    site.fail_over();
    wait_for("nobody leads", || !replicas.iter().any(leads));
    // A write with the former master's lock changes nothing here.
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    let mut before = String::new();
    wait_for("one leads", || {
        let text = url_of(&site.promoted, "hello");
        if lock(&site.promoted) == "1 earlier" {
            before = text;
        }
        replicas.iter().filter(|replica| leads(replica)).count() == 1
    });
    assert_eq!(before, "", "nobody wrote while the lock was another's");
    wait_for("the change", || url_of(&site.promoted, "hello") == url(81));
    assert_ne!(lock(&site.promoted), held);
}

#[test]
fn replica_that_sees_only_the_former_master_writes_nothing_to_the_new_one() {
    let (api, site) = (ApiServer::start(), CutOff::start());
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let cut_off = Kube2proxy::start(&api, &site.former, &NO_RESYNC);
    site.copy();
    // As time passes, the lock expires in the new master, where nobody renews it.
    site.promoted.cli(&["PEXPIRE", "k8s_lock", "1"]);
    site.fail_over();
    let other = start(&api, &site, &[]);
    wait_for("two lead, each in its own Redis", || leads(&cut_off) && leads(&other));
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    wait_for("the change", || url_of(&site.promoted, "hello") == url(81));
    // The former master becomes a replica: its leader has no lock there.
    let port = site.promoted.port().to_string();
    site.former.cli(&["REPLICAOF", "127.0.0.1", &port]);
    wait_for("the other's lock", || lock(&site.former) == lock(&site.promoted));
    cut_off.daemon.wait_for_line(&["WARN"]);
    wait_for("one leads", || !leads(&cut_off));
    assert!(leads(&other) && !other.daemon.log().contains("lock lost"), "{}", other.daemon.log());
}

#[test]
fn too_few_replicas_are_said_once_and_make_it_not_ready() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    wait_for("not ready", || !kube2proxy.is_ready());
    kube2proxy.daemon.wait_for_line(&[
        "WARN Redis request failed",
        "the master refuses writes, because fewer replicas are connected to it than its min-replicas-to-write",
    ]);
    // Longer than the lock lasts.
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    kube2proxy.daemon.wait_for_line(&["WARN lock lost"]);
    let requests = || kube2proxy.metric("kube2proxy_redis_seconds_count");
    let before = requests();
    wait_for("more attempts", || requests() >= before + 2.0);
    assert!(!kube2proxy.is_ready());
    assert_eq!(url_of(&redis, "hello"), url(80));
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    wait_for("the change", || url_of(&redis, "hello") == url(81));
    kube2proxy.wait_until_ready();
    assert_eq!(kube2proxy.daemon.log().matches("WARN Redis request failed").count(), 1, "{}", kube2proxy.daemon.log());
    kube2proxy.daemon.wait_for_line(&["INFO Redis writes succeed again"]);
}
