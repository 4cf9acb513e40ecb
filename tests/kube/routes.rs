//! Routes of kube2proxy: from Services to Redis, beside other writers, and under the withdrawal guard.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api_server::{ALWAYS, ApiServer, Break, Fault, Request, WEB_SERVICE, web_service};
use crate::kube2proxy::{Kube2proxy, members, routes, url_of};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

fn with_path(mut service: Value, path: &str) -> Value {
    service["metadata"]["labels"]["toollabs-proxy-path"] = path.into();
    service
}

fn origin(source: &str, since: u64) -> String {
    format!(r#"{{"source":"{source}","owner":"tools.hello","host":"10.68.0.1","since":{since}}}"#)
}

fn pair(pattern: &str, url: &str) -> (String, String) {
    (pattern.into(), url.into())
}

#[test]
fn lists_and_changes_of_services_are_routed() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    for number in 1..=5 {
        api.apply(&format!("tool-t{number}"), &format!("t{number}"), web_service(&format!("10.96.0.{number}"), 8000));
    }
    api.apply("tool-other", "other", json!({"spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    for number in 1..=5 {
        assert_eq!(
            url_of(&redis, &format!("t{number}")),
            format!("http://10.96.0.{number}:8000"),
            "ready means written"
        );
    }
    let without_label: Vec<_> = (1..=5).map(|number| format!("tool-t{number}/t{number}/.*")).collect();
    assert_eq!(members(&redis), without_label);
    let origin: urlproxy::registry::Origin = serde_json::from_str(&redis.cli(&["HGET", "origin:t1", ".*"])).unwrap();
    assert_eq!((&*origin.source, &*origin.owner), ("kube2proxy", "tool-t1/t1"));
    assert!(origin.since > 1_700_000_000, "{origin:?}");

    api.apply("hello", "hello", web_service("10.96.1.1", 80));
    wait_for("a new one", || url_of(&redis, "hello") == "http://10.96.1.1:80");
    api.apply("hello", "hello", web_service("10.96.1.1", 81));
    wait_for("another port", || url_of(&redis, "hello") == "http://10.96.1.1:81");
    api.apply("hello", "hello", with_path(web_service("10.96.1.1", 81), "api"));
    wait_for("a label", || routes(&redis, "hello") == [pair("/api.*", "http://10.96.1.1:81")]);
    wait_for("members follow", || members(&redis).contains(&"hello/hello/api.*".into()));
    assert!(!members(&redis).contains(&"hello/hello/.*".into()));
    api.apply("hello", "hello", web_service("fd00::7", 81));
    wait_for("IPv6", || routes(&redis, "hello") == [pair(".*", "http://[fd00::7]:81")]);
    let mut unlabeled = web_service("fd00::7", 81);
    unlabeled["metadata"] = json!({});
    api.apply("hello", "hello", unlabeled);
    wait_for("it is no web service any more", || redis.cli(&["EXISTS", "prefix:hello", "origin:hello"]) == "0");
    api.delete("tool-t1", "t1");
    wait_for("a deleted one", || redis.cli(&["EXISTS", "prefix:t1", "origin:t1"]) == "0");
    assert_eq!(members(&redis), without_label[1..]);
    wait_for("counted", || kube2proxy.metric("kube2proxy_services{state=\"routed\"}") == 4.0);
    assert!(api.unexpected().is_empty(), "{:?}", api.unexpected());
}

#[test]
fn each_change_is_atomic() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    for round in 0..20 {
        let path = if round % 2 == 0 { "api" } else { "" };
        api.apply("hello", "hello", with_path(web_service("10.96.0.1", 80), path));
        let want = if round % 2 == 0 { "/api.*" } else { ".*" };
        wait_for("the change", || routes(&redis, "hello")[0].0 == want);
    }
    redis.cli(&["PUBLISH", "end", "of the test"]);
    let commands: Vec<_> =
        BufReader::new(monitor).lines().map(Result::unwrap).take_while(|l| !l.contains("PUBLISH")).collect();
    // `[0 lua]` is a script, which is atomic; `[0 127.0.0.1:4711]` would be a command of its own.
    let writes: Vec<_> =
        commands.iter().filter(|line| line.contains("\"HSET\"") || line.contains("\"HDEL\"")).collect();
    assert!(writes.len() >= 60, "{commands:?}");
    assert!(writes.iter().all(|line| line.contains("[0 lua]")), "{writes:?}");
    let set = commands.iter().filter(|line| line.contains("\"HSET\" \"prefix:hello\"")).count();
    assert_eq!(set, 20, "one write for each change");
}

#[test]
fn stale_routes_of_the_old_program_go_and_grid_routes_stay() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    redis.cli(&[
        "SADD",
        "k8s_services",
        "hello/hello/.*",
        "gone/gone/.*",
        "gone/gone/api.*",
        "grid/grid/.*",
        "nonsense",
    ]);
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.96.0.99:1"]);
    redis.cli(&[
        "HSET",
        "prefix:gone",
        ".*",
        "http://10.96.0.2:80",
        "/api.*",
        "http://10.96.0.2:80",
        "/mine",
        "http://10.68.0.1:1",
    ]);
    redis.cli(&["HSET", "prefix:grid", ".*", "http://10.68.0.1:8000"]);
    redis.cli(&["HSET", "origin:grid", ".*", &origin("proxylistener", 1)]);
    let _kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    assert_eq!(routes(&redis, "gone"), [pair("/mine", "http://10.68.0.1:1")]);
    assert_eq!(url_of(&redis, "grid"), "http://10.68.0.1:8000");
    assert_eq!(members(&redis), ["hello/hello/.*", "nonsense"]);
}

#[test]
fn most_recent_of_grid_and_cluster_wins() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    let grid = "http://10.68.0.1:8000";
    for (tool, since, address) in [("old", 1, "10.96.0.1"), ("young", 4_000_000_000, "10.96.0.2")] {
        redis.cli(&["HSET", &format!("prefix:{tool}"), ".*", grid]);
        redis.cli(&["HSET", &format!("origin:{tool}"), ".*", &origin("proxylistener", since)]);
        api.apply(tool, tool, web_service(address, 80));
    }
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--resync-interval", "1s"]);
    assert_eq!((url_of(&redis, "old"), url_of(&redis, "young")), ("http://10.96.0.1:80".into(), grid.into()));
    assert_eq!(members(&redis), ["old/old/.*"]);
    kube2proxy.daemon.wait_for_line(&[
        "INFO",
        "route not registered; another program registered this tool and pattern more recently",
        "tool=\"young\"",
    ]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        kube2proxy.daemon.log().matches("and pattern more recently").count(),
        1,
        "logged once in several comparisons"
    );
    wait_for("counted", || kube2proxy.metric("kube2proxy_services{state=\"outdone\"}") == 1.0);
    // After the end of the job the Service gets the route.
    redis.cli(&["DEL", "prefix:young", "origin:young"]);
    wait_for("the cluster has it", || url_of(&redis, "young") == "http://10.96.0.2:80");
    // A job registers after the Service, which is then deleted.
    redis.cli(&["HSET", "prefix:old", ".*", grid]);
    redis.cli(&["HSET", "origin:old", ".*", &origin("proxylistener", 4_000_000_000)]);
    api.delete("old", "old");
    wait_for("its registration is removed", || members(&redis) == ["young/young/.*"]);
    assert_eq!(url_of(&redis, "old"), grid);
}

#[test]
fn service_named_after_another_tool_is_rejected_with_an_event() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("tool-evil", "hello", web_service("10.96.0.66", 80));
    api.apply("tool-hello", "hello", web_service("10.96.0.1", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    wait_for("an Event", || api.reasons("tool-evil", "hello") == ["NamespaceNotAllowed"]);
    let event = &api.events()[0];
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("does not belong to the tool \"hello\"") && event["type"] == "Warning", "{event}");
    kube2proxy.daemon.wait_for_line(&["WARN", "not routed", "namespace=\"tool-evil\"", "NamespaceNotAllowed"]);
    wait_for("counted", || kube2proxy.metric("kube2proxy_rejected_services{reason=\"NamespaceNotAllowed\"}") == 1.0);
    api.delete("tool-hello", "hello");
    wait_for("the route is gone", || redis.cli(&["EXISTS", "prefix:hello"]) == "0");
    assert_eq!(api.events().len(), 1, "reported once");
}

#[test]
fn namespace_template_selects_the_namespaces() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("tool-hello", "hello", web_service("10.96.0.1", 80));
    api.apply("hello-prod", "hello", web_service("10.96.0.2", 80));
    let mut kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    kube2proxy.daemon.signal("TERM");
    assert_eq!(kube2proxy.daemon.wait_for_end(), 0);
    let _kube2proxy = Kube2proxy::start(&api, &redis, &["--namespace-template", "{tool}-prod"]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.2:80");
    assert_eq!(members(&redis), ["hello-prod/hello/.*"]);
}

#[test]
fn rejected_services_get_events_with_the_reason() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    let label = json!({"labels": {WEB_SERVICE: "true"}});
    let service = |spec: Value| json!({"metadata": label, "spec": spec});
    api.apply("a", "a", service(json!({"clusterIP": "None", "ports": [{"port": 80}]})));
    api.apply("b", "b", service(json!({"type": "ExternalName", "externalName": "example.org"})));
    api.apply("c", "c", service(json!({"clusterIP": "10.96.0.1"})));
    api.apply("d", "d", service(json!({"clusterIP": "10.96.0.1", "ports": "many"})));
    api.apply("e", "e", json!({"metadata": label}));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    api.apply("tool-hello", "hello", web_service("10.96.0.2", 80));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(routes(&redis, "hello").len(), 1);
    for (name, reason) in
        [("a", "Headless"), ("b", "ExternalName"), ("c", "NoPort"), ("d", "Malformed"), ("e", "Malformed")]
    {
        wait_for(name, || api.reasons(name, name) == [reason]);
    }
    let superseded = || [api.reasons("hello", "hello"), api.reasons("tool-hello", "hello")].concat();
    wait_for("one of two", || superseded() == ["AlreadyClaimed"]);
    // The mistake is corrected, and made again.
    api.apply("a", "a", web_service("10.96.0.5", 80));
    wait_for("it is routed", || url_of(&redis, "a") == "http://10.96.0.5:80");
    api.apply("a", "a", service(json!({"clusterIP": "None"})));
    wait_for("it is not", || url_of(&redis, "a").is_empty());
}

#[test]
fn missing_right_to_write_events_is_logged_once() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.fail(Request::Event, Fault::Status(403), ALWAYS);
    for name in ["a", "b", "c"] {
        api.apply("evil", name, web_service("10.96.0.66", 80));
    }
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    for name in ["a", "b", "c"] {
        kube2proxy.daemon.wait_for_line(&["WARN", "not routed", &format!("service=\"{name}\"")]);
    }
    kube2proxy.daemon.wait_for_line(&["WARN", "Kubernetes Event not written"]);
    wait_for("all were tried", || api.count(Request::Event) == 3);
    assert_eq!(kube2proxy.daemon.log().matches("Kubernetes Event not written").count(), 1);
}

#[test]
fn all_routes_return_after_an_outage_or_flush_of_redis() {
    let (api, mut redis) = (ApiServer::start(), RedisServer::start(&[]));
    for number in 0..30 {
        api.apply(&format!("t{number}"), &format!("t{number}"), web_service(&format!("10.96.2.{number}"), 80));
    }
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--resync-interval", "1h"]);
    let count = |redis: &RedisServer| redis.cli(&["SCARD", "k8s_services"]);
    let all_there = |redis: &RedisServer, what: &str| {
        let begun = Instant::now();
        wait_for(what, || count(redis) == "30" && (0..30).all(|n| !url_of(redis, &format!("t{n}")).is_empty()));
        eprintln!("{what}: all routes after {:?}", begun.elapsed());
    };
    redis.cli(&["FLUSHALL"]);
    all_there(&redis, "flushed");
    // The next script is no longer cached.
    redis.cli(&["SCRIPT", "FLUSH"]);
    api.apply("t0", "t0", web_service("10.96.2.0", 81));
    wait_for("a change", || url_of(&redis, "t0") == "http://10.96.2.0:81");
    redis.stop();
    redis.start_again();
    all_there(&redis, "restarted empty");
    redis.cli(&["SWAPDB", "0", "1"]);
    all_there(&redis, "swapped");

    redis.stop();
    api.delete("t0", "t0");
    api.apply("t1", "t1", web_service("10.96.0.2", 80));
    api.apply("t30", "t30", web_service("10.96.0.3", 80));
    kube2proxy.daemon.wait_for_line(&["WARN", "Redis request failed; retrying"]);
    redis.start_again();
    wait_for("nothing was lost", || url_of(&redis, "t1") == "http://10.96.0.2:80" && !url_of(&redis, "t30").is_empty());
    wait_for("nor kept", || count(&redis) == "30" && url_of(&redis, "t0").is_empty());
    kube2proxy.daemon.wait_for_line(&["INFO", "Redis writes succeed again"]);

    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    api.apply("t1", "t1", web_service("10.96.0.4", 80));
    kube2proxy.daemon.wait_for_line(&["Redis request failed", "read only replica"]);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    wait_for("the change", || url_of(&redis, "t1") == "http://10.96.0.4:80");
}

#[test]
fn changes_by_other_writers_are_repaired() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &["--resync-interval", "1s"]);
    redis.cli(&["DEL", "prefix:hello"]);
    wait_for("restored", || url_of(&redis, "hello") == "http://10.96.0.1:80");
    redis.cli(&["DEL", "origin:hello", "k8s_services"]);
    wait_for("signed again", || members(&redis) == ["hello/hello/.*"] && redis.cli(&["EXISTS", "origin:hello"]) == "1");
}

#[test]
fn route_overwritten_by_an_old_writer_stays_when_the_service_goes() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--resync-interval", "1s"]);
    // As proxylistener.py does: without an origin.
    let grid = "http://10.68.0.1:8000";
    redis.cli(&["HSET", "prefix:hello", ".*", grid]);
    kube2proxy.daemon.wait_for_line(&[
        "INFO",
        "route not registered; another program registered this tool and pattern more recently",
    ]);
    assert_eq!(url_of(&redis, "hello"), grid);
    // The Service's own destination in another spelling is normalized.
    redis.cli(&["HSET", "prefix:hello", ".*", "HTTP://10.96.0.1/"]);
    wait_for("its normal form", || url_of(&redis, "hello") == "http://10.96.0.1:80");
    redis.cli(&["HSET", "prefix:hello", ".*", grid]);
    // A later change of the Service wins again.
    std::thread::sleep(Duration::from_millis(1100));
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    wait_for("the most recent", || url_of(&redis, "hello") == "http://10.96.0.1:81");
    redis.cli(&["HSET", "prefix:hello", ".*", grid]);
    wait_for("the writer has the route", || members(&redis).is_empty());
    api.delete("hello", "hello");
    wait_for("its registration is removed", || redis.cli(&["EXISTS", "origin:hello", "k8s_services"]) == "0");
    assert_eq!(url_of(&redis, "hello"), grid);
}

#[test]
fn redirect_is_removed_with_the_old_route() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.68.0.1:8000"]);
    redis.cli(&["HSET", "redirect:hello", ".*", "hello.toolforge.org", "/other", "hello.toolforge.org"]);
    redis.cli(&["HSET", "origin:hello", ".*", &origin("proxylistener", 1)]);
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    assert_eq!(redis.cli(&["HKEYS", "redirect:hello"]), "/other");
}

#[test]
fn shutdown_does_not_wait_for_redis() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let mut kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    redis.signal("STOP");
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    kube2proxy.daemon.wait_for_line(&["WARN", "Redis request failed; retrying"]);
    kube2proxy.daemon.signal("TERM");
    // It waits for one more reply, to release the lock: two seconds.
    assert_eq!(kube2proxy.daemon.wait_for_end(), 0);
    redis.signal("CONT");
}

#[test]
fn key_of_a_wrong_type_affects_only_its_tool() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    redis.cli(&["SADD", "prefix:odd", "http://10.0.0.1:80"]);
    for (tool, address) in [("a", "10.96.0.1"), ("odd", "10.96.0.2"), ("z", "10.96.0.3")] {
        api.apply(tool, tool, web_service(address, 80));
    }
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--resync-interval", "1s"]);
    assert_eq!(
        (url_of(&redis, "a"), url_of(&redis, "z")),
        ("http://10.96.0.1:80".into(), "http://10.96.0.3:80".into())
    );
    kube2proxy.daemon.wait_for_line(&["WARN", "routes not registered", "tool=\"odd\"", "WRONGTYPE"]);
    wait_for("counted", || kube2proxy.metric("kube2proxy_services{state=\"failing\"}") == 1.0);
    redis.cli(&["DEL", "prefix:odd"]);
    wait_for("another attempt", || url_of(&redis, "odd") == "http://10.96.0.2:80");
}

#[test]
fn mass_loss_in_a_list_is_held() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    for number in 0..30 {
        api.apply(&format!("t{number}"), &format!("t{number}"), web_service(&format!("10.96.2.{number}"), 80));
    }
    let accept = redis.dir().join("accept");
    let guard = format!("50% floor=20 hold=1h accept={}", accept.display());
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--withdrawal-guard", &guard]);
    let count = || members(&redis).len();
    // Deletions that a watch reports take effect at once, also many.
    for number in 0..5 {
        api.delete(&format!("t{number}"), &format!("t{number}"));
    }
    wait_for("deleted", || count() == 25);
    let wipe = || {
        for number in 5..30 {
            api.delete_silently(&format!("t{number}"), &format!("t{number}"));
        }
        let lists = api.lists();
        api.forget_history();
        api.break_watches(Break::Gone);
        wait_for("another list", || api.lists() > lists);
    };
    wipe();
    kube2proxy.daemon.wait_for_line(&["WARN", "Services missing from the cluster", "missing=25", "live=25"]);
    wait_for("counted", || kube2proxy.metric("kube2proxy_services{state=\"held\"}") == 25.0);
    // Returning and new Services are routed, held routes stay.
    api.apply("t5", "t5", web_service("10.96.0.5", 80));
    api.apply("new", "new", web_service("10.96.0.9", 80));
    wait_for("changes", || url_of(&redis, "t5") == "http://10.96.0.5:80" && !url_of(&redis, "new").is_empty());
    assert_eq!(count(), 26);
    std::fs::write(&accept, "t7\nprefix:t8\nnew\n").unwrap();
    wait_for("those named", || count() == 24);
    assert_eq!(redis.cli(&["EXISTS", "prefix:t7", "prefix:t8", "prefix:t9", "prefix:new"]), "2");
    wait_for("counted", || kube2proxy.metric("kube2proxy_services{state=\"held\"}") == 22.0);
    std::fs::write(&accept, "").unwrap();
    wait_for("accepted", || members(&redis) == ["new/new/.*", "t5/t5/.*"]);
    assert_eq!(redis.cli(&["EXISTS", "prefix:t6", "origin:t6"]), "0");
}
