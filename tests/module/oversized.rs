//! Keys with replies that break the connection, also for a Redis user without MEMORY USAGE.

use std::time::Duration;

use urlproxy::sync::Settings;

use crate::following::{following, routes, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::{wait_for, wait_within};

/// Number of HGETALL calls.
fn reads(redis: &RedisServer) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls =
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_hgetall:calls=")?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

#[test]
fn without_memory_usage_a_key_is_retried_alone_until_readable() {
    const LONG: Duration = Duration::from_secs(60);
    let redis = RedisServer::start(&[]);
    redis.cli(&["ACL", "SETUSER", "sync", "on", ">pw", "~*", "+@all", "-memory|usage"]);
    redis.cli(&["HSET", "prefix:key", ".*", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    let url = format!("redis://sync:pw@127.0.0.1:{}/0", redis.port());
    // No resync helps.
    let settings = Settings { resync_interval: Duration::from_secs(3600), ..settings(&url) };
    let said = following(&settings, |table| {
        wait_for("loaded", || routes(table).len() == 2);
        redis.cli(&["EVAL", "redis.call('HSET', 'prefix:key', string.rep('x', 2000000), 'http://10.0.0.1:1')", "0"]);
        let connected = || redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("user=sync")).count();
        redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:2"]);
        wait_for("other changes arrive", || routes(table).get("a .*").is_some_and(|url| url == "http://10.0.0.1:2"));
        let before = reads(&redis);
        wait_within(LONG, "retried", || reads(&redis) > before);
        wait_for("that connection is gone", || connected() == 1);
        assert_eq!(routes(table).get("key .*").map(String::as_str), Some("http://10.0.0.1:1"), "the old routes stay");
        redis.cli(&["DEL", "prefix:key"]);
        redis.cli(&["HSET", "prefix:key", ".*", "http://10.0.0.1:3"]);
        wait_within(LONG, "readable again", || {
            routes(table).get("key .*").is_some_and(|url| url == "http://10.0.0.1:3")
        });
        redis.cli(&["HSET", "prefix:key", ".*", "http://10.0.0.1:4"]);
        wait_for("like any other", || routes(table).get("key .*").is_some_and(|url| url == "http://10.0.0.1:4"));
    });
    let texts: Vec<_> = said.iter().map(|entry| entry.text.as_str()).collect();
    let count = |text: &str| texts.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        count("following routes failed: "),
        1,
        "only the first reply breaks the companion's connection: {texts:?}"
    );
    assert!(count("keeping its routes, retrying later, key=\"prefix:key\"") >= 1, "{texts:?}");
    assert_eq!(count("key readable again, key=\"prefix:key\""), 1, "{texts:?}");
}

#[test]
fn one_large_value_among_many_small_ones_is_found() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    // Only new connections scan.
    let settings = Settings { resync_interval: Duration::from_secs(3600), ..settings(&redis.url()) };
    let said = following(&settings, |table| {
        wait_for("loaded", || routes(table).len() == 1);
        let script = "for i = 1, 5000 do redis.call('HSET', 'prefix:key', '/p' .. i, 'http://10.0.0.1:1') end
            redis.call('HSET', 'prefix:key', 'large', string.rep('x', 2000000))";
        redis.cli(&["EVAL", script, "0"]);
        redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:2"]);
        wait_for("other changes arrive", || routes(table).get("a .*").is_some_and(|url| url == "http://10.0.0.1:2"));
    });
    let texts: Vec<_> = said.iter().map(|entry| entry.text.as_str()).collect();
    let count = |text: &str| texts.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("following routes failed: "), 1, "only the first reply breaks the connection: {texts:?}");
    assert_eq!(count("the key is too large to be read, tool=\"key\""), 1, "{texts:?}");
}
