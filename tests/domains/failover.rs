//! A failover of Redis that loses what the former master has confirmed.

use crate::site::{A, B, Site, frontends, one, wait_until_equal};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{CutOff, clients};
use crate::support::wait::wait_for;

#[test]
fn lost_changes_are_repeated_over_the_new_connection() {
    let (site, servers) = (Site::new(), CutOff::start());
    let url = servers.url();
    let unicorn = site.start(&servers.former, &["--redis", &url, "--resync-interval", "1h"]);
    for domain in ["kept.example.org", "changed.example.org", "deleted.example.org"] {
        unicorn.put("tools", domain, &[A]);
    }
    wait_until_equal(&site, &servers.former);
    servers.copy();
    // The new master will have none of these, although they are answered as replicated.
    for domain in ["added.example.org", "changed.example.org"] {
        assert_eq!(unicorn.put("tools", domain, &[B]).header("urlproxy-replicated"), Some("yes"));
    }
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/deleted.example.org", ""), (200, "deleted".into()));
    wait_until_equal(&site, &servers.former);
    assert_ne!(frontends(&servers.promoted), site.mappings());

    servers.fail_over();
    let took = wait_for("the lost changes", || frontends(&servers.promoted) == site.mappings());
    println!("lost changes are back {took:?} after Sentinel's word");
    unicorn.daemon.wait_for_line(&["INFO replication to Redis restored"]);
    wait_for("no connection to the former master", || clients(&servers.former) == 0);
    let answer = unicorn.put("tools", "later.example.org", &[A]);
    assert_eq!(answer.header("urlproxy-replicated"), Some("yes"));
    wait_until_equal(&site, &servers.promoted);
    assert!(!frontends(&servers.former).contains(&one("later.example.org", A)));
}

#[test]
fn change_that_only_the_former_master_confirms_after_the_move_is_pending() {
    let (site, servers) = (Site::new(), CutOff::start());
    let url = servers.url();
    let unicorn = site.start(&servers.former, &["--redis", &url]);
    servers.former.signal("STOP");
    servers.promoted.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    servers.fail_over();
    unicorn.daemon.wait_for_line(&["WARN Sentinels name another master"]);
    let answer = unicorn.put("tools", "a.example.org", &[A]);
    servers.former.signal("CONT");
    assert_eq!(answer.header("urlproxy-replicated"), Some("pending"));
    servers.promoted.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    wait_until_equal(&site, &servers.promoted);
}

#[test]
fn too_few_replicas_leave_changes_pending_and_are_said_once() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let unicorn = site.start(&redis, &[]);
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    for domain in ["a.example.org", "b.example.org"] {
        let answer = unicorn.put("tools", domain, &[A]);
        assert_eq!(answer.header("urlproxy-replicated"), Some("pending"));
    }
    unicorn.daemon.wait_for_line(&[
        "WARN replication to Redis failing; changes queued",
        "the master refuses writes, because fewer replicas are connected to it than its min-replicas-to-write",
    ]);
    assert!(unicorn.is_ready(), "readiness survives");
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["INFO replication to Redis restored"]);
    assert_eq!(unicorn.daemon.log().matches("WARN replication to Redis failing").count(), 1);
}
