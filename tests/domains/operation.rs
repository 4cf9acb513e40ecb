//! Replication to a Redis that is down, hangs, is flushed, has other writers, or grants few rights; shutdown; command line.

use std::fs;
use std::time::Instant;

use crate::site::{A, B, Site, frontends, one, run, start, wait_until_equal};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

#[test]
fn changes_are_in_redis_when_they_are_answered() {
    let (_site, redis, unicorn) = start(&[]);
    for number in 0..50 {
        let domain = format!("d{number}.example.org");
        assert_eq!(unicorn.put("tools", &domain, &[A]).header("urlproxy-replicated"), Some("yes"));
        assert_eq!(redis.cli(&["SMEMBERS", &format!("frontend:{domain}")]), A);
    }
    wait_for("the gauge follows", || unicorn.metric("invisible_unicorn_domains") == 50.0);
    assert_eq!(unicorn.metric("invisible_unicorn_requests_total{method=\"PUT\",status=\"200\"}"), 50.0);
}

#[test]
fn changes_during_an_outage_of_redis_are_replicated_later() {
    let (site, mut redis, unicorn) = start(&[]);
    unicorn.put("tools", "gone.example.org", &[A]);
    redis.stop();
    unicorn.daemon.wait_for_line(&["WARN", "replication to Redis failing"]);
    assert_eq!(unicorn.put("tools", "new.example.org", &[B]).header("urlproxy-replicated"), Some("pending"));
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/gone.example.org", ""), (200, "deleted".into()));
    wait_for("the gauge follows", || unicorn.metric("invisible_unicorn_waiting_changes") == 2.0);
    assert!(unicorn.is_ready(), "readiness survives an outage of Redis");
    redis.start_again();
    redis.cli(&["SADD", "frontend:gone.example.org", A]);
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["INFO", "replication to Redis restored"]);
    assert_eq!(unicorn.daemon.log().matches("WARN replication to Redis failing").count(), 1);
    wait_for("the gauge follows", || unicorn.metric("invisible_unicorn_waiting_changes") == 0.0);
}

#[test]
fn server_starts_and_serves_without_redis() {
    let (site, mut redis) = (Site::new(), RedisServer::start(&[]));
    redis.stop();
    let unicorn = site.launch(&redis, &[]);
    assert_eq!(unicorn.put("tools", "a.example.org", &[A]).header("urlproxy-replicated"), Some("pending"));
    assert!(!unicorn.is_ready());
    redis.start_again();
    wait_for("ready", || unicorn.is_ready());
    wait_until_equal(&site, &redis);
}

#[test]
fn hanging_redis_neither_delays_nor_loses_changes() {
    let (site, redis, unicorn) = start(&[]);
    redis.signal("STOP");
    let answer = unicorn.put("tools", "a.example.org", &[A]);
    assert_eq!(answer.header("urlproxy-replicated"), Some("pending"));
    unicorn.daemon.wait_for_line(&["WARN", "replication to Redis failing", "no reply within"]);
    unicorn.put("tools", "a.example.org", &[B]);
    redis.signal("CONT");
    wait_until_equal(&site, &redis);
}

#[test]
fn flushed_redis_is_filled_again() {
    let (site, mut redis, unicorn) = start(&[]);
    for number in 0..30 {
        unicorn.put("tools", &format!("d{number}.example.org"), &[A, B]);
    }
    let started = Instant::now();
    redis.cli(&["FLUSHALL"]);
    wait_until_equal(&site, &redis);
    eprintln!("filled again {:?} after FLUSHALL", started.elapsed());
    redis.stop();
    redis.start_again();
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["INFO", "Redis differed from the database; corrected", "written=30"]);
}

#[test]
fn changes_of_other_writers_are_overwritten() {
    let (site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A, B]);
    unicorn.put("tools", "b.example.org", &[A]);
    let undone = |command: &[&str]| {
        let started = Instant::now();
        redis.cli(command);
        wait_until_equal(&site, &redis);
        eprintln!("{:?} after {command:?}", started.elapsed());
    };
    for command in [
        &["SADD", "frontend:a.example.org", "http://10.6.6.6:80"][..],
        &["SREM", "frontend:a.example.org", A],
        &["DEL", "frontend:a.example.org"],
        &["SET", "frontend:a.example.org", "x"],
        &["RENAME", "frontend:b.example.org", "frontend:foreign.example.org"],
        &["PEXPIRE", "frontend:a.example.org", "1"],
        &["SADD", "frontend:foreign.example.org", A],
        &["SADD", "frontend:", A],
        &["SADD", "frontend:\\xff", A],
    ] {
        undone(command);
    }
    redis.cli(&["SADD", "prefix:tool", "x"]);
    assert_eq!(redis.cli(&["SMEMBERS", "prefix:tool"]), "x", "not a domain's key");
    unicorn.daemon.wait_for_line(&["WARN", "another writer changed domains in Redis", "a.example.org"]);
    assert_eq!(unicorn.daemon.log().matches("WARN another writer").count(), 1);
}

#[test]
fn two_servers_on_one_redis_do_not_delay_changes() {
    let (site, redis, unicorn) = start(&[]);
    let other_site = Site::new();
    unicorn.put("tools", "a.example.org", &[A]);
    let other = other_site.launch(&redis, &[]);
    other.put("tools", "a.example.org", &[B]);
    for server in [&unicorn, &other] {
        server.daemon.wait_for_line(&["WARN", "another writer changed domains in Redis"]);
    }
    let written = || unicorn.metric("invisible_unicorn_differences_total{kind=\"written\"}");
    wait_for("ten repairs", || written() > 10.0);
    let (started, before) = (Instant::now(), written());
    for number in 0..20 {
        let answer = unicorn.put("tools", &format!("d{number}.example.org"), &[A]);
        assert_eq!(answer.header("urlproxy-replicated"), Some("yes"));
    }
    let took = started.elapsed();
    assert!(written() - before < 20.0 + 10.0 * took.as_secs_f64(), "repairs back off");
    assert_eq!(unicorn.daemon.log().matches("WARN another writer").count(), 1);
    drop(other);
    wait_until_equal(&site, &redis);
}

#[test]
fn resync_finds_changes_without_an_invalidation() {
    let (site, redis, unicorn) = start(&["--resync-interval", "500ms"]);
    unicorn.put("tools", "a.example.org", &[A]);
    assert_eq!(redis.cli(&["SWAPDB", "0", "1"]), "OK");
    wait_until_equal(&site, &redis);
}

#[test]
fn start_repairs_missing_changed_and_unmapped_domains() {
    let (site, redis, unicorn) = start(&[]);
    for name in ["a", "b", "c"] {
        unicorn.put("tools", &format!("{name}.example.org"), &[A]);
    }
    wait_until_equal(&site, &redis);
    drop(unicorn);
    redis.cli(&["DEL", "frontend:a.example.org"]);
    redis.cli(&["SADD", "frontend:b.example.org", B]);
    redis.cli(&["SADD", "frontend:foreign.example.org", B]);
    let unicorn = site.start(&redis, &[]);
    assert_eq!(frontends(&redis), site.mappings());
    unicorn.daemon.wait_for_line(&[
        "Redis differed from the database; corrected",
        "written=2",
        "withdrawn=1",
        "domains=3",
    ]);
    assert_eq!(unicorn.metric("invisible_unicorn_differences_total{kind=\"withdrawn\"}"), 1.0);
}

#[test]
fn foreign_domains_are_kept_until_the_operator_accepts() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let foreign = one("foreign.example.org", A);
    redis.cli(&["SADD", "frontend:foreign.example.org", A]);
    let unicorn = site.start(&redis, &["--resync-interval", "200ms"]);
    unicorn.daemon.wait_for_line(&["WARN", "Redis has domains that this database never had", "foreign=1"]);
    // Nor after its first domain.
    unicorn.put("tools", "a.example.org", &[A]);
    let compared = || unicorn.daemon.log().matches("Redis matches the database").count();
    let before = compared();
    wait_for("five more resyncs", || compared() > before + 5);
    assert_eq!(frontends(&redis), [one("a.example.org", A), foreign]);
    assert_eq!(unicorn.daemon.log().matches("WARN Redis has domains").count(), 1);
    assert_eq!(unicorn.metric("invisible_unicorn_held_domains"), 1.0);
    fs::write(site.accept(), "").unwrap();
    wait_until_equal(&site, &redis);
    assert_eq!(frontends(&redis), [one("a.example.org", A)]);
    unicorn.daemon.wait_for_line(&["WARN", "accept file touched"]);
    // From now on, the database owns this Redis.
    redis.cli(&["SADD", "frontend:foreign.example.org", A]);
    wait_until_equal(&site, &redis);
}

#[test]
fn mass_withdrawals_are_held() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let guard = format!("50% floor=5 hold=1h accept={}", site.accept().display());
    let args = ["--withdrawal-guard", &guard, "--resync-interval", "200ms"];
    let unicorn = site.start(&redis, &args);
    for number in 0..10 {
        unicorn.put("tools", &format!("d{number}.example.org"), &[A]);
    }
    // A killed server would replicate its outbox again, deletions included.
    let waiting = || site.open().query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0)).unwrap();
    wait_for("all are in Redis", || waiting() == 0);
    drop(unicorn);
    // As after restoring an old backup: most domains are missing.
    site.open().execute_batch("PRAGMA foreign_keys = ON; DELETE FROM domain WHERE name > 'd1'").unwrap();
    assert_eq!(site.mappings().len(), 1);
    let unicorn = site.start(&redis, &args);
    unicorn.daemon.wait_for_line(&["WARN", "the database lacks domains that Redis has", "missing=9", "live=10"]);
    // Projects' deletions are not held.
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/d0.example.org", "").0, 200);
    assert_eq!(frontends(&redis).len(), 9);
    wait_for("the gauge follows", || unicorn.metric("invisible_unicorn_held_domains") == 9.0);
    // Names accept those domains alone.
    fs::write(site.accept(), "# one of them\nfrontend:d2.example.org\nd3.example.org\n").unwrap();
    unicorn.daemon.wait_for_line(&["WARN", "accept file names entries that are not held", "prefix:d3.example.org"]);
    unicorn.daemon.wait_for_line(&["WARN", "withdrawing domains", "missing=1", "named in the accept file", "held=8"]);
    wait_for("one domain is removed", || unicorn.metric("invisible_unicorn_held_domains") == 8.0);
    let left = frontends(&redis);
    assert!(left.len() == 8 && left.iter().all(|(domain, _)| domain != "d2.example.org"), "{left:?}");
    fs::write(site.accept(), "").unwrap();
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["WARN", "withdrawing domains that the database lacks", "accepted"]);
}

#[test]
fn database_of_another_redis_does_not_empty_this_one() {
    let (site, elsewhere, redis) = (Site::new(), RedisServer::start(&[]), RedisServer::start(&[]));
    let guard = format!("50% floor=5 hold=1h accept={}", site.accept().display());
    let args = ["--withdrawal-guard", &guard, "--resync-interval", "200ms"];
    let unicorn = site.start(&elsewhere, &args);
    for number in 0..12 {
        unicorn.put("tools", &format!("d{number}.example.org"), &[A]);
        redis.cli(&["SADD", &format!("frontend:other{number}.example.org"), A]);
    }
    drop(unicorn);
    redis.cli(&["SREM", "frontend:other0.example.org", A]);
    let unicorn = site.start(&redis, &args);
    unicorn.daemon.wait_for_line(&["WARN", "the database lacks domains that Redis has", "missing=11", "live=11"]);
    assert_eq!(frontends(&redis).len(), 23);
}

#[test]
fn sigterm_drains_requests_and_replicates_changes() {
    let (site, redis, mut unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.daemon.signal("TERM");
    assert_eq!(unicorn.daemon.wait_for_end(), 0);
    unicorn.daemon.wait_for_line(&["INFO", "shutdown complete"]);
    assert!(unicorn.try_ask("GET", "/openapi.json", &[], "").is_err());
    assert_eq!(frontends(&redis), site.mappings());
    // Even while Redis is down.
    let (_site, mut redis, mut unicorn) = start(&[]);
    redis.stop();
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.daemon.signal("INT");
    assert_eq!(unicorn.daemon.wait_for_end(), 0);
}

#[test]
fn documented_acl_rights_suffice() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let begins = "ACL SETUSER invisible-unicorn";
    let in_manual = |text: &'static str| text.lines().find(|line| line.trim().starts_with(begins));
    let acl = in_manual(include_str!("../../docs/invisible-unicorn.md")).expect("a line of the page");
    redis.create_user(acl);
    let url = redis.url().replace("//", "//invisible-unicorn:password@");
    let unicorn = site.start(&redis, &["--redis", &url]);
    unicorn.put("tools", "a.example.org", &[A, B]);
    redis.cli(&["SADD", "frontend:foreign.example.org", A]);
    redis.cli(&["DEL", "frontend:a.example.org"]);
    wait_until_equal(&site, &redis);
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/a.example.org", "").0, 200);
    assert_eq!(frontends(&redis), []);
    let log = unicorn.daemon.log();
    assert!(!log.contains("password") && !log.contains("NOPERM") && !log.contains("replication to Redis"), "{log}");
}

#[test]
fn second_server_reports_the_locked_database_before_its_ports() {
    let (site, _redis, unicorn) = start(&[]);
    let (listen, metrics_listen) = (unicorn.address.to_string(), unicorn.status.to_string());
    let (status, _, error) = site.run(&["--listen", &listen, "--metrics-listen", &metrics_listen]);
    assert!(status == 1 && error.contains("another invisible-unicorn serves database"), "{error}");
}

#[test]
fn usage_errors_show_what_was_expected() {
    assert!(run(&["--version"]).1.starts_with("invisible-unicorn "));
    for (args, want) in [
        (&["--no-such-option"][..], "unexpected argument"),
        (&["--listen", "here"], "invalid socket address"),
        (&["--redis", "http://h:password@x"], "expected e.g. \"redis://"),
        (&["--allow-backend", "10.0.0.0/99"], "invalid value '10.0.0.0/99'"),
        (&["--max-backends", "65"], "expected 1 to 64"),
        (&["--audit-size", "64"], "expected e.g. \"64MiB\""),
        (&["--max-connections", "0"], "0 is not in 1..=100000"),
        (&["domain", "move", "a.example.org", "a b"], "invalid project \"a b\""),
        (&["--withdrawal-guard", "half"], "expected e.g. \"50% floor=20"),
        (&["--protected-suffixes", "/nowhere"], "while reading --protected-suffixes \"/nowhere\""),
        (&["token", "create", "a b"], "invalid project \"a b\""),
        (&["token"], "create"),
        (&["import"], "required"),
    ] {
        let (status, _, error) = run(args);
        assert_eq!(status, 64, "{args:?}: {error}");
        assert!(error.contains(want) && !error.contains("password"), "{args:?}: {error}");
    }
    let (status, _, error) = run(&["--database", "/nowhere/x.db"]);
    assert!(status == 1 && error.contains("while opening database \"/nowhere/x.db\""), "{error}");
}
