//! Faults of the API server, none of which may cost kube2proxy's routes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api_server::{ALWAYS, ApiServer, Break, Fault, NEW_LABELS, Request, WEB_SERVICE, web_service};
use crate::kube2proxy::{Kube2proxy, members, url_of};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Few enough for the withdrawal guard to ignore a loss of all: it must not be what saves them.
const SERVICES: usize = 9;

fn cluster() -> ApiServer {
    let api = ApiServer::start();
    for number in 0..SERVICES {
        api.apply(&name(number), &name(number), web_service(&address(number), 80));
    }
    api
}

fn address(number: usize) -> String {
    format!("10.96.1.{number}")
}

fn name(number: usize) -> String {
    format!("t{number}")
}

#[track_caller]
fn all_are_there(redis: &RedisServer) {
    assert_eq!(members(redis), (0..SERVICES).map(|n| format!("{0}/{0}/.*", name(n))).collect::<Vec<_>>());
    for number in 0..SERVICES {
        assert_eq!(url_of(redis, &name(number)), format!("http://{}:80", address(number)), "t{number}");
    }
}

/// Checks that a change arrives, and that all other routes are unchanged.
#[track_caller]
fn catches_up(api: &ApiServer, redis: &RedisServer, what: &str) {
    api.apply("new", "new", web_service("10.96.0.7", 80));
    wait_for(&format!("a change after {what}"), || url_of(redis, "new") == "http://10.96.0.7:80");
    api.delete("new", "new");
    wait_for(&format!("another after {what}"), || url_of(redis, "new").is_empty());
    all_are_there(redis);
}

fn guardless(api: &ApiServer, redis: &RedisServer) -> Kube2proxy {
    Kube2proxy::start(api, redis, &["--withdrawal-guard", "off"])
}

#[test]
fn start_waits_for_a_list_and_deletes_nothing_before() {
    for fault in [
        Fault::Status(500),
        Fault::Status(403),
        Fault::Busy(1),
        Fault::Garbage,
        Fault::Cut,
        Fault::Slow(Duration::from_millis(300)),
    ] {
        let (api, redis) = (cluster(), RedisServer::start(&[]));
        redis.cli(&["SADD", "k8s_services", "gone/gone/.*"]);
        redis.cli(&["HSET", "prefix:gone", ".*", "http://10.96.0.2:80"]);
        api.fail(Request::List, fault.clone(), 2);
        let kube2proxy = Kube2proxy::launch(&api, &redis, &["--withdrawal-guard", "off"]);
        kube2proxy.wait_until_ready();
        assert_eq!(url_of(&redis, "gone"), "", "{fault:?}");
        all_are_there(&redis);
        if !matches!(fault, Fault::Slow(_)) {
            assert!(api.lists() >= 3, "{fault:?}");
            kube2proxy.daemon.wait_for_line(&["WARN", "watch failed; keeping existing routes"]);
        }
    }
}

#[test]
fn replica_without_a_list_is_not_ready_and_changes_nothing() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    redis.cli(&["SADD", "k8s_services", "gone/gone/.*"]);
    redis.cli(&["HSET", "prefix:gone", ".*", "http://10.96.0.2:80"]);
    api.fail(Request::List, Fault::Status(500), ALWAYS);
    let kube2proxy = Kube2proxy::launch(&api, &redis, &["--withdrawal-guard", "off"]);
    wait_for("several attempts", || api.lists() >= 4);
    assert!(!kube2proxy.is_ready());
    assert_eq!((members(&redis).len(), url_of(&redis, "gone")), (1, "http://10.96.0.2:80".into()));
    assert_eq!(kube2proxy.daemon.log().matches("watch failed").count(), 1, "logged once");
}

#[test]
fn incomplete_list_is_ignored() {
    for fault in [Fault::Status(500), Fault::Status(410), Fault::Garbage, Fault::Cut, Fault::Status(429)] {
        let (api, redis) = (cluster(), RedisServer::start(&[]));
        let kube2proxy = guardless(&api, &redis);
        api.set_page_size(2);
        api.fail(Request::NextPage, fault.clone(), 3);
        let lists = api.lists();
        api.forget_history();
        api.break_watches(Break::Gone);
        wait_for("some lists", || api.lists() >= lists + 3);
        all_are_there(&redis);
        catches_up(&api, &redis, &format!("{fault:?}"));
        assert!(!kube2proxy.daemon.log().contains("withdrawn tool=\"t"), "{fault:?}");
    }
}

#[test]
fn broken_watches_lose_nothing() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let kube2proxy = guardless(&api, &redis);
    for how in [Break::Gone, Break::Error, Break::Garbage, Break::Nonsense, Break::HalfLine, Break::Cut, Break::End] {
        wait_for("a watch", || api.open_watches() > 0);
        api.break_watches(how);
        catches_up(&api, &redis, &format!("{how:?}"));
    }
    assert!(!kube2proxy.daemon.log().contains("withdrawn tool=\"t"));
}

#[test]
fn refused_watch_restarts_with_a_list() {
    for fault in [Fault::Status(410), Fault::Status(403), Fault::Status(500), Fault::Busy(1), Fault::Garbage] {
        let (api, redis) = (cluster(), RedisServer::start(&[]));
        let _kube2proxy = guardless(&api, &redis);
        wait_for("a watch", || api.open_watches() > 0);
        let lists = api.lists();
        api.fail(Request::Watch, fault.clone(), 2);
        api.break_watches(Break::End);
        wait_for("another list", || api.lists() > lists);
        catches_up(&api, &redis, &format!("{fault:?}"));
    }
}

#[test]
fn silent_connection_is_noticed() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &["--watch-timeout", "1s", "--withdrawal-guard", "off"]);
    wait_for("a watch", || api.open_watches() > 0);
    api.break_watches(Break::Silence);
    let begun = Instant::now();
    catches_up(&api, &redis, "a silent watch");
    eprintln!("a silent watch: noticed within {:?}", begun.elapsed());
    // A list without a response, and one with the head of a response only.
    for fault in [Fault::Hang, Fault::Silent] {
        api.fail(Request::List, fault.clone(), 1);
        api.forget_history();
        api.break_watches(Break::Gone);
        catches_up(&api, &redis, &format!("{fault:?}"));
    }
}

#[test]
fn changes_during_an_outage_are_caught_up() {
    let (mut api, redis) = (cluster(), RedisServer::start(&[]));
    let kube2proxy = guardless(&api, &redis);
    api.stop();
    kube2proxy.daemon.wait_for_line(&["WARN", "watch failed; keeping existing routes"]);
    wait_for("counted", || kube2proxy.metric("kube2proxy_watching") == 0.0);
    all_are_there(&redis);
    // Redis can be repaired meanwhile.
    redis.cli(&["FLUSHALL"]);
    wait_for("from memory", || members(&redis).len() == SERVICES);
    all_are_there(&redis);
    api.delete("t0", "t0");
    api.apply("t1", "t1", web_service("10.96.0.8", 80));
    api.apply("t9", "t9", web_service("10.96.0.9", 80));
    assert!(kube2proxy.is_ready(), "still ready");
    api.start_again();
    wait_for("a new one", || url_of(&redis, "t9") == "http://10.96.0.9:80");
    wait_for("a changed one", || url_of(&redis, "t1") == "http://10.96.0.8:80");
    wait_for("one that is gone", || url_of(&redis, "t0").is_empty());
    kube2proxy.daemon.wait_for_line(&["INFO", "watching Services", "services=9"]);
    let log = kube2proxy.daemon.log();
    for logged_once in ["watch failed", "lock missing in Redis"] {
        assert_eq!(log.matches(logged_once).count(), 1, "{log}");
    }
    assert!(!log.contains("ERROR"), "{log}");
    wait_for("counted", || kube2proxy.metric("kube2proxy_watching") == 1.0);
    assert!(kube2proxy.metric("kube2proxy_since_last_list_seconds") < 60.0);
}

#[test]
fn new_token_is_read_from_its_file() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let token = redis.dir().join("token");
    fs::write(&token, "first\n").unwrap();
    api.require_token(Some("first"));
    let cluster = format!("  master: {}\n  token_file: {}\n", api.url(), token.display());
    let kube2proxy = Kube2proxy::launch_with(&cluster, &redis, &["--withdrawal-guard", "off"]);
    kube2proxy.wait_until_ready();
    api.require_token(Some("second"));
    api.break_watches(Break::End);
    wait_for("it is refused", || api.unauthorized() > 0);
    kube2proxy.daemon.wait_for_line(&["WARN", "watch failed"]);
    all_are_there(&redis);
    fs::write(&token, "second\n").unwrap();
    catches_up(&api, &redis, "a new token");
    fs::remove_file(&token).unwrap();
    api.require_token(Some("third"));
    api.break_watches(Break::End);
    wait_for("its file is gone", || kube2proxy.daemon.log().matches("watch failed").count() >= 2);
    all_are_there(&redis);
    fs::write(&token, "third\n").unwrap();
    catches_up(&api, &redis, "a third token");
}

#[test]
fn malformed_service_does_not_affect_others() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let metadata = json!({"labels": {WEB_SERVICE: "true"}});
    for (number, spec) in
        [json!(null), json!([]), json!({"clusterIP": {}}), json!({"ports": {}, "clusterIP": "10.96.0.1"})]
            .into_iter()
            .enumerate()
    {
        let name = format!("odd{number}");
        api.apply(&name, &name, json!({"metadata": metadata, "spec": spec}));
    }
    let kube2proxy = guardless(&api, &redis);
    all_are_there(&redis);
    wait_for("counted", || kube2proxy.metric("kube2proxy_rejected_services{reason=\"Malformed\"}") == 4.0);
    api.apply("odd", "odd", json!({"metadata": metadata, "spec": 7}));
    catches_up(&api, &redis, "an odd one");
}

#[test]
fn next_list_finds_missed_changes() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let _kube2proxy = guardless(&api, &redis);
    api.delete_silently("t0", "t0");
    api.apply_silently("t1", "t1", web_service("10.96.0.8", 80));
    api.forget_history();
    api.break_watches(Break::Gone);
    wait_for("one that is gone", || url_of(&redis, "t0").is_empty());
    wait_for("a changed one", || url_of(&redis, "t1") == "http://10.96.0.8:80");
}

#[test]
fn failing_watches_do_not_cause_endless_lists() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let kube2proxy = guardless(&api, &redis);
    api.fail(Request::Watch, Fault::Status(403), ALWAYS);
    api.break_watches(Break::End);
    wait_for("several lists", || api.lists() >= 5);
    // By now it waits for a second or more, by each of two selectors.
    let lists = api.lists();
    std::thread::sleep(Duration::from_secs(3));
    assert!(api.lists() - lists <= 10, "{} lists in 3 s", api.lists() - lists);
    all_are_there(&redis);
    api.recover();
    catches_up(&api, &redis, "many failures");
    drop(kube2proxy);
}

#[test]
fn watch_that_ends_immediately_is_a_failure() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let kube2proxy = guardless(&api, &redis);
    api.fail(Request::Watch, Fault::Empty, ALWAYS);
    api.break_watches(Break::End);
    kube2proxy.daemon.wait_for_line(&["WARN", "watch failed", "ended immediately"]);
    wait_for("counted", || kube2proxy.metric("kube2proxy_watching") == 0.0);
    let watches = api.watches();
    std::thread::sleep(Duration::from_secs(3));
    assert!(api.watches() - watches <= 20, "{} watches in 3 s", api.watches() - watches);
    // Lists find what the watches miss.
    api.apply("t0", "t0", web_service(&address(0), 81));
    wait_for("the change", || url_of(&redis, "t0") == format!("http://{}:81", address(0)));
    api.apply("t0", "t0", web_service(&address(0), 80));
    api.recover();
    wait_for("the change", || url_of(&redis, "t0") == format!("http://{}:80", address(0)));
    catches_up(&api, &redis, "empty watches");
}

#[test]
fn failed_list_of_one_selector_deletes_nothing_and_blocks_the_start() {
    let (api, redis) = (cluster(), RedisServer::start(&[]));
    let mut both = web_service("10.96.2.1", 80);
    let mut new = web_service("10.96.2.2", 80);
    new["metadata"]["labels"] = json!({});
    for service in [&mut both, &mut new] {
        for (label, value) in NEW_LABELS {
            service["metadata"]["labels"][label] = json!(value);
        }
    }
    api.apply("both", "both", both.clone());
    api.apply("new", "new", new.clone());
    api.fail_lists_by(NEW_LABELS[0].0);
    let kube2proxy = Kube2proxy::launch(&api, &redis, &["--withdrawal-guard", "off"]);
    wait_for("several attempts", || api.lists() >= 4);
    assert!(!kube2proxy.is_ready() && members(&redis).is_empty(), "one selector's list is not enough");
    api.recover();
    kube2proxy.wait_until_ready();
    assert_eq!(
        (url_of(&redis, "both"), url_of(&redis, "new")),
        ("http://10.96.2.1:80".into(), "http://10.96.2.2:80".into())
    );
    // While one selector's lists fail, its routes stay.
    api.fail_lists_by(NEW_LABELS[0].0);
    api.forget_history();
    let lists = api.lists();
    api.break_watches(Break::Gone);
    wait_for("several lists", || api.lists() >= lists + 4);
    api.apply("t0", "t0", web_service(&address(0), 81));
    wait_for("a change by the other", || url_of(&redis, "t0") == format!("http://{}:81", address(0)));
    assert_eq!(members(&redis).len(), SERVICES + 2);
    api.apply("t0", "t0", web_service(&address(0), 80));
    api.recover();
    wait_for("watching again", || kube2proxy.metric("kube2proxy_watching") == 1.0);
    // The old label goes, and the Service stays.
    both["metadata"]["labels"][WEB_SERVICE] = json!(null);
    api.apply("both", "both", both);
    api.apply("t0", "t0", web_service(&address(0), 82));
    wait_for("a later change", || url_of(&redis, "t0") == format!("http://{}:82", address(0)));
    assert_eq!(url_of(&redis, "both"), "http://10.96.2.1:80");
    api.delete("both", "both");
    wait_for("it is gone", || url_of(&redis, "both").is_empty());
}

#[test]
fn hold_does_not_end_while_the_cluster_is_unreachable() {
    let (mut api, redis) = (cluster(), RedisServer::start(&[]));
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--withdrawal-guard", "50% floor=5 hold=2s"]);
    for number in 0..SERVICES {
        api.delete_silently(&name(number), &name(number));
    }
    api.forget_history();
    api.break_watches(Break::Gone);
    kube2proxy.daemon.wait_for_line(&["WARN", "Services missing from the cluster"]);
    api.stop();
    wait_for("counted", || kube2proxy.metric("kube2proxy_watching") == 0.0);
    std::thread::sleep(Duration::from_secs(3));
    all_are_there(&redis);
    api.start_again();
    wait_for("the end of the hold", || members(&redis).is_empty());
    kube2proxy.daemon.wait_for_line(&["WARN", "withdrawing the routes", "hold expired"]);
}
