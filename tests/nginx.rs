//! Real nginx with the module, real Redis, traffic: what an operator would see.

#[path = "common/nginx.rs"]
mod nginx;
#[path = "common/port.rs"]
mod port;
#[path = "common/redis.rs"]
mod redis_server;

use std::time::{Duration, Instant};

use nginx::{Load, Nginx, Tool, get, wait_for};
use redis_server::RedisServer;

fn http(redis: &str, table: &str) -> String {
    format!(
        "urlproxy_table tools {{ zone 1m; redis {redis}; {table} }}
        upstream tools {{ urlproxy_peers; keepalive 16; }}
        server {{
            listen 127.0.0.1:@port@;
            location / {{
                urlproxy tools path;
                proxy_http_version 1.1;
                proxy_set_header Connection '';
                proxy_pass $urlproxy_scheme://tools;
            }}
            location = /list {{ urlproxy_list tools; }}
        }}"
    )
}

fn set(redis: &RedisServer, tool: &str, url: &str) {
    redis.cli(&["HSET", &format!("prefix:{tool}"), ".*", url]);
}

/// How many companions are connected, looking on for a while.
fn companions(redis: &RedisServer) -> usize {
    redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("name=urlproxy ")).count()
}

#[test]
fn a_start_with_redis_up_never_answers_503() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    set(&redis, "hello", &tool.url());
    let nginx = Nginx::start("worker_processes 2;", &http(&redis.url(), ""));
    let first = nginx.get("/hello/");
    assert_eq!((first.status, first.body.as_str()), (200, "hello"));
    assert!(nginx.log().contains("urlproxy: routes loaded, tools=1"));
}

#[test]
fn a_change_is_served_by_every_worker_at_once() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    let nginx = Nginx::start("worker_processes 2;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    assert_eq!(nginx.get("/hello/").status, 503);
    set(&redis, "hello", &tool.url());
    let routed = nginx.wait_for_status("/hello/", 200);
    (0..20).for_each(|_| assert_eq!(nginx.get("/hello/").status, 200));
    redis.cli(&["HDEL", "prefix:hello", ".*"]);
    let withdrawn = nginx.wait_for_status("/hello/", 503);
    println!("routed after {routed:?}, withdrawn after {withdrawn:?}");
}

#[test]
fn redis_may_be_killed_under_load_and_come_back_with_other_data() {
    let (mut redis, old, new) = (RedisServer::start(&[]), Tool::start("old"), Tool::start("new"));
    set(&redis, "hello", &old.url());
    let nginx = Nginx::start("worker_processes 2;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    let mut load = Load::start(nginx.port, "/hello/");
    redis.stop();
    let dead = Instant::now();
    while dead.elapsed() < Duration::from_secs(2) {
        assert_eq!(nginx.get("/hello/").body, "old");
    }
    redis.start_again();
    set(&redis, "hello", &new.url());
    set(&redis, "more", &new.url());
    let served = wait_for("the new data is served", || nginx.get("/hello/").body == "new");
    nginx.wait_for_status("/more/", 200);
    assert!(load.is_running(), "the load ended too early to prove anything");
    let report = load.finish();
    println!("{} requests, {} failed, new data served after {served:?}", report.requests, report.failed);
    assert!(report.requests > 100 && report.failed == 0, "{}", report.text);
    assert!(served < Duration::from_secs(2), "{served:?}");
    let warned = nginx.log().lines().filter(|l| l.contains("[warn]") && l.contains("the table serves on")).count();
    assert_eq!(warned, 1, "one warning for one outage");
}

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    set(&redis, "hello", &tool.url());
    let nginx = Nginx::start("worker_processes 2;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    let mut load = Load::start(nginx.port, "/hello/");
    let first = resident_kib(&nginx);
    let mut last = nginx.workers();
    for round in 0..20 {
        nginx.reload();
        wait_for("a new generation", || {
            assert!(companions(&redis) <= 1, "two companions at once in round {round}");
            let now = nginx.workers();
            now.len() == 2 && now.iter().all(|pid| !last.contains(pid))
        });
        last = nginx.workers();
        wait_for("its companion", || companions(&redis) == 1);
        assert_eq!(nginx.get("/list").body, r#"{"hello":{"status":"active"}}"#);
    }
    assert!(load.is_running(), "the load ended before the reloads did");
    let now = resident_kib(&nginx);
    let report = load.finish();
    println!("20 reloads: {} requests, {} failed, workers {first} -> {now} KiB", report.requests, report.failed);
    assert!(report.requests > 100 && report.failed == 0, "{}", report.text);
    assert!(now < first + 2048, "workers grew from {first} to {now} KiB");
    assert!(!nginx.log().contains("panic") && !nginx.log().contains("[alert]"));
    // The generation that is left follows.
    redis.cli(&["DEL", "prefix:hello"]);
    nginx.wait_for_status("/hello/", 503);
}

/// The memory of the largest worker.
fn resident_kib(nginx: &Nginx) -> u64 {
    let resident = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or("0").trim().to_owned();
        line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    nginx.workers().iter().map(resident).max().unwrap()
}

#[test]
fn four_workers_have_one_companion() {
    let redis = RedisServer::start(&[]);
    let _nginx = Nginx::start("worker_processes 4;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        assert_eq!(companions(&redis), 1);
    }
}

#[test]
fn without_redis_it_says_not_yet_instead_of_never() {
    let (mut redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    redis.stop();
    let nginx = Nginx::start("worker_processes 1;", &http(&redis.url(), "wait_for_routes 100ms;"));
    for path in ["/hello/", "/list"] {
        let answer = nginx.get(path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.head.contains("Retry-After: 1"), "{path}: {}", answer.head);
    }
    redis.start_again();
    set(&redis, "hello", &tool.url());
    nginx.wait_for_status("/hello/", 200);
    assert!(!nginx.get("/nobody/").head.contains("Retry-After"));
}

#[test]
fn a_configuration_test_touches_nothing() {
    let redis = RedisServer::start(&[]);
    let nginx = Nginx::prepare("", &http(&redis.url(), "wait_for_routes 10s;"));
    let connections = || {
        let stats = redis.cli(&["INFO", "stats"]);
        let line = stats.lines().find_map(|l| l.strip_prefix("total_connections_received:")).unwrap().trim().to_owned();
        line.parse::<u64>().unwrap()
    };
    let before = connections();
    redis.signal("STOP");
    let start = Instant::now();
    let output = nginx.check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    redis.signal("CONT");
    assert_eq!(connections(), before + 1, "only this question's own connection");
}

#[test]
fn a_single_process_follows_too() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    let nginx = Nginx::start("master_process off;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    set(&redis, "hello", &tool.url());
    nginx.wait_for_status("/hello/", 200);
    redis.cli(&["DEL", "prefix:hello"]);
    nginx.wait_for_status("/hello/", 503);
}

#[test]
fn a_refused_configuration_leaves_the_running_one_alone() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    set(&redis, "hello", &tool.url());
    let good = http(&redis.url(), "");
    let nginx = Nginx::start("", &good);
    nginx.configure("", &good.replace("zone 1m", "zone 1y"));
    let output = nginx.check();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(r#""zone" invalid size (at least 256k) "1y", expected e.g. "16m" in "#), "{said}");
    assert!(!output.status.success());
    let refusals = nginx.log().matches("[emerg]").count();
    nginx.signal("HUP");
    wait_for("the refusal", || nginx.log().matches("[emerg]").count() > refusals);
    assert_eq!(get(nginx.port, "/hello/").status, 200);
    set(&redis, "other", &tool.url());
    nginx.wait_for_status("/other/", 200);
}

#[test]
fn a_zone_that_grows_shrinks_or_is_renamed_carries_its_routes_over() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    let conf = |table: &str, zone: &str| {
        let conf = http(&redis.url(), "wait_for_routes 100ms;").replace("zone 1m", &format!("zone {zone}"));
        conf.replace("urlproxy_table tools", &format!("urlproxy_table {table}"))
            .replace("urlproxy tools path", &format!("urlproxy {table} path"))
            .replace("urlproxy_list tools", &format!("urlproxy_list {table}"))
    };
    (0..100).for_each(|n| set(&redis, &format!("tool-{n}"), &tool.url()));
    let nginx = Nginx::start("worker_processes 2;", &conf("tools", "1m"));
    wait_for("the companion follows", || companions(&redis) == 1);
    let load = Load::start(nginx.port, "/tool-7/");
    // What is carried over cannot have come from there.
    redis.signal("STOP");
    let mut carried = 0;
    for (table, zone) in [("tools", "4m"), ("tools", "512k"), ("webtools", "2m")] {
        let former = nginx.workers();
        nginx.configure("worker_processes 2;", &conf(table, zone));
        nginx.reload();
        wait_for("a new generation", || nginx.workers().iter().all(|pid| !former.contains(pid)));
        carried += 1;
        let said = nginx.log().matches("carried over to another zone, tools=100").count();
        assert_eq!(said, carried, "{table} {zone}");
        assert_eq!(nginx.get("/list").body.matches("active").count(), 100);
    }
    redis.signal("CONT");
    wait_for("the companion follows", || companions(&redis) == 1);
    let script = "for i = 1, 1500 do redis.call('HSET', 'prefix:more-' .. i, '.*', 'http://127.0.0.1:1') end";
    redis.cli(&["EVAL", script, "0"]);
    wait_for("more tools", || nginx.get("/list").body.matches("active").count() == 1600);
    let former = nginx.workers();
    nginx.configure("worker_processes 2;", &conf("webtools", "256k"));
    nginx.signal("HUP");
    wait_for("the refusal", || nginx.log().contains("[emerg]"));
    let emergency = nginx.log().lines().find(|line| line.contains("[emerg]")).unwrap().to_owned();
    assert!(emergency.contains("urlproxy_table webtools: no room for tool "), "{emergency}");
    assert_eq!(nginx.workers(), former, "the configuration in force stays");
    assert_eq!(nginx.get("/tool-7/").body, "hello");
    set(&redis, "late", &tool.url());
    nginx.wait_for_status("/late/", 200);
    let report = load.finish();
    println!("4 reloads: {} requests, {} failed", report.requests, report.failed);
    assert!(report.requests > 100 && report.failed == 0, "{}", report.text);
}
