//! kube2proxy beside other writers: grid jobs, programs of the old stack, and other Services at the same address.

use crate::api_server::{ApiServer, Break, web_service};
use crate::kube2proxy::{Kube2proxy, members, routes, url_of};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const GRID: &str = "http://10.68.0.1:8000";
/// So long that only invalidations report changes in time.
const NO_RESYNC: [&str; 2] = ["--resync-interval", "1h"];

fn origin(source: &str, since: u64) -> String {
    format!(r#"{{"source":"{source}","owner":"tools.hello","host":"10.68.0.1","since":{since}}}"#)
}

/// Registers as a job does, more recently than any Service.
fn register(redis: &RedisServer, tool: &str) {
    let both = format!(
        "redis.call('HSET', 'prefix:{tool}', '.*', '{GRID}') redis.call('HSET', 'origin:{tool}', '.*', '{}')",
        origin("proxylistener", 4_000_000_000)
    );
    redis.cli(&["EVAL", &both, "0"]);
}

fn unregister(redis: &RedisServer, tool: &str) {
    let both = format!("redis.call('HDEL', 'prefix:{tool}', '.*') redis.call('HDEL', 'origin:{tool}', '.*')");
    redis.cli(&["EVAL", &both, "0"]);
}

/// The number of scripts run so far.
fn scripts(redis: &RedisServer) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts were run");
    let calls = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next()).expect("a number of calls");
    calls.parse().expect("a number")
}

#[test]
fn service_gets_its_route_back_when_the_job_ends() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &NO_RESYNC);
    for round in 0..3 {
        register(&redis, "hello");
        wait_for("it is the job's", || members(&redis).is_empty());
        assert_eq!(url_of(&redis, "hello"), GRID);
        unregister(&redis, "hello");
        wait_for("it is the Service's", || url_of(&redis, "hello") == "http://10.96.0.1:80");
        wait_for("registered", || members(&redis) == ["hello/hello/.*"]);
        if round == 1 {
            // Losing the connection for invalidations loses no changes.
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
    }
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    register(&redis, "hello");
    unregister(&redis, "hello");
    wait_for("it is the Service's", || url_of(&redis, "hello") == "http://10.96.0.1:80");
    drop(kube2proxy);
}

#[test]
fn changes_of_tools_without_services_cost_nothing() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    for number in 0..200 {
        api.apply(&format!("t{number}"), &format!("t{number}"), web_service(&format!("10.96.1.{number}"), 80));
    }
    let kube2proxy = Kube2proxy::start(&api, &redis, &NO_RESYNC);
    // Its own writes are compared once more, which writes nothing.
    let quiet = || {
        let before = scripts(&redis);
        std::thread::sleep(std::time::Duration::from_millis(2500));
        scripts(&redis) - before < 20
    };
    wait_for("its own writes are compared", quiet);
    let before = scripts(&redis);
    for round in 0..100 {
        let change = format!(
            "for i = 1, 50 do redis.call('HSET', 'prefix:grid' .. i, '.*', 'http://10.68.0.1:' .. ({round} + i)) end"
        );
        redis.cli(&["EVAL", &change, "0"]);
    }
    register(&redis, "t7");
    wait_for("the invalidations", || members(&redis).len() == 199);
    assert!(scripts(&redis) - before < 100, "{} scripts after 5,000 changes", scripts(&redis) - before);
    wait_for("counted", || kube2proxy.metric("kube2proxy_services{state=\"outdone\"}") == 1.0);
}

#[test]
fn repeated_removal_of_a_route_is_rate_limited() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &NO_RESYNC);
    let before = scripts(&redis);
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        redis.cli(&["HDEL", "prefix:hello", ".*"]);
    }
    let at_most = 20 + 4 * (begun.elapsed().as_secs() + 1);
    let run = scripts(&redis) - before;
    assert!(run < at_most, "{run} scripts in {:?}", begun.elapsed());
    wait_for("it is back", || url_of(&redis, "hello") == "http://10.96.0.1:80");
}

#[test]
fn reused_address_evicts_the_previous_tool() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    for number in 0..30 {
        api.apply(&format!("t{number}"), &format!("t{number}"), web_service(&format!("10.96.1.{number}"), 80));
    }
    let accept = redis.dir().join("accept");
    let guard = format!("50% floor=20 hold=1h accept={}", accept.display());
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--withdrawal-guard", &guard]);
    assert_eq!(redis.cli(&["HGET", "addresses", "10.96.1.5:80"]), "t5");
    // The guard holds the routes of missing Services, and the API server reuses one of their addresses.
    for number in 0..30 {
        api.delete_silently(&format!("t{number}"), &format!("t{number}"));
    }
    api.apply_silently("new", "new", web_service("10.96.1.5", 80));
    api.forget_history();
    api.break_watches(Break::Gone);
    kube2proxy.daemon.wait_for_line(&["WARN", "Services missing from the cluster"]);
    wait_for("the new one has it", || url_of(&redis, "new") == "http://10.96.1.5:80");
    assert_eq!(redis.cli(&["EXISTS", "prefix:t5", "origin:t5", "prefix:t6"]), "1", "only t6 is held");
    assert_eq!(redis.cli(&["HGET", "addresses", "10.96.1.5:80"]), "new");
    kube2proxy.daemon.wait_for_line(&[
        "WARN",
        "another tool was routed to this address",
        "tool=\"new\"",
        "evicted=\"t5\"",
    ]);
    // Withdrawal clears the address index.
    std::fs::write(&accept, "").unwrap();
    wait_for("withdrawn", || members(&redis) == ["new/new/.*"]);
    assert_eq!(redis.cli(&["HGETALL", "addresses"]), "10.96.1.5:80\nnew");
    api.apply("new", "new", web_service("10.96.1.6", 80));
    wait_for("moved", || redis.cli(&["HGETALL", "addresses"]) == "10.96.1.6:80\nnew");
}

#[test]
fn service_evicts_a_grid_route_at_its_address() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    redis.cli(&["HSET", "prefix:thief", ".*", "http://10.96.0.1:80", "/mine", GRID]);
    redis.cli(&["HSET", "origin:thief", ".*", &origin("proxylistener", 4_000_000_000)]);
    redis.cli(&["HSET", "redirect:thief", ".*", "thief.example.org"]);
    redis.cli(&["HSET", "addresses", "10.96.0.1:80", "thief", "10.68.0.1:8000", "thief"]);
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let _kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    assert_eq!(routes(&redis, "thief"), [("/mine".to_owned(), GRID.to_owned())]);
    assert_eq!(redis.cli(&["EXISTS", "origin:thief", "redirect:thief"]), "0");
}

#[test]
fn newest_service_at_an_address_wins() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("a", "a", web_service("10.96.0.1", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &NO_RESYNC);
    let mut younger = web_service("10.96.0.1", 80);
    younger["metadata"]["creationTimestamp"] = "2100-01-01T00:00:00Z".into();
    api.apply("b", "b", younger);
    wait_for("the newer one has it", || members(&redis) == ["b/b/.*"]);
    assert_eq!((url_of(&redis, "a"), url_of(&redis, "b")), (String::new(), "http://10.96.0.1:80".into()));
    wait_for("an Event", || api.reasons("a", "a") == ["AddressTaken"]);
    let written = kube2proxy.metric("kube2proxy_routes_written_total");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(kube2proxy.metric("kube2proxy_routes_written_total"), written);
    api.delete("b", "b");
    wait_for("the other has it again", || url_of(&redis, "a") == "http://10.96.0.1:80");
}

#[test]
fn route_moved_by_an_old_writer_goes_with_its_service() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    for (tool, address) in [("moved", "10.96.0.1"), ("kept", "10.96.0.2"), ("job", "10.96.0.3"), ("here", "10.96.0.4")]
    {
        api.apply(tool, tool, web_service(address, 80));
    }
    let mut kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    kube2proxy.daemon.signal("TERM");
    assert_eq!(kube2proxy.daemon.wait_for_end(), 0);
    // While it is down, kube2proxy.py moves two routes, without an origin, and a job overwrites another.
    redis.cli(&["HSET", "prefix:moved", ".*", "http://10.96.0.9:80"]);
    redis.cli(&["HSET", "prefix:here", ".*", "http://10.96.0.4:81"]);
    register(&redis, "job");
    for tool in ["moved", "job"] {
        api.delete(tool, tool);
    }
    api.apply("here", "here", web_service("10.96.0.4", 81));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    assert_eq!(redis.cli(&["EXISTS", "prefix:moved", "origin:moved"]), "0");
    assert_eq!(url_of(&redis, "job"), GRID, "a job's own route is never touched");
    assert_eq!(members(&redis), ["here/here/.*", "kept/kept/.*"]);
    assert!(
        redis.cli(&["HGET", "origin:here", ".*"]).contains("http://10.96.0.4:81"),
        "the origin has the new address"
    );
    api.delete("here", "here");
    wait_for("it goes with its Service", || redis.cli(&["EXISTS", "prefix:here", "origin:here"]) == "0");
    drop(kube2proxy);
}
