//! The companion against a real Redis: the table follows every change and never loses a route.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use urlproxy::registry::{self, Origin, Ownership, Registration, Withdrawal};
use urlproxy::route::{Backend, Pattern, ToolName};
use urlproxy::sync::{Journal, Settings, WriterLock, load_once, run};
use urlproxy::table::{Capacity, OwnedTable};

use crate::following::{CAPACITY, following, is_locked, lines, map, routes, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

#[test]
fn first_load_takes_valid_routes_and_rejects_others() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1", "/x", "https://10.0.0.2:2", "(", "http://10.0.0.1:3"]);
    redis.cli(&["SADD", "prefix:b", "http://10.0.0.1:1", "http://10.0.0.2:1", "nonsense"]);
    redis.cli(&["SET", "prefix:string", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", &format!("prefix:{}", "x".repeat(256)), ".*", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", "redirect:a", ".*", "elsewhere"]);
    redis.cli(&["SADD", "frontend:www.a.org", "http://10.0.0.1:1"]);
    // Keys similar to the followed ones.
    redis.cli(&["HSET", "origin:a", ".*", "{}"]);
    redis.cli(&["SADD", "predicate:a", "http://10.0.0.1:1"]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let deadline = Instant::now() + SOON;
    assert!(load_once(owned.table(), &settings(&redis.url()), deadline, &journal));
    let want = [
        ("a .*", "http://10.0.0.1:1"),
        ("a /x", "https://10.0.0.2:2"),
        ("b .*", "http://10.0.0.1:1 http://10.0.0.2:1"),
        ("/ra", ""),
        ("/dwww.a.org .*", "http://10.0.0.1:1"),
    ];
    assert_eq!(routes(owned.table()), map(&want));
    assert!(owned.table().header().is_loaded());
    assert_eq!(owned.table().header().rejected(), 4);
    let said: Vec<_> = lines(&reader).into_iter().map(|e| e.text).collect();
    for want in ["unclosed group", "\"nonsense\" has no scheme", "neither a hash nor a set", "256 bytes"] {
        assert!(said.iter().any(|line| line.starts_with("route rejected") && line.contains(want)), "{want}: {said:?}");
    }
}

#[test]
fn loading_an_empty_source_succeeds() {
    let redis = RedisServer::start(&[]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, _reader) = Journal::new(100);
    assert!(load_once(owned.table(), &settings(&redis.url()), Instant::now() + SOON, &journal));
    assert!(owned.table().header().is_loaded() && routes(owned.table()).is_empty());
}

#[test]
fn first_load_ends_at_the_deadline() {
    let mut redis = RedisServer::start(&[]);
    redis.stop();
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let start = Instant::now();
    assert!(!load_once(owned.table(), &settings(&redis.url()), start + Duration::from_millis(300), &journal));
    assert!(start.elapsed() < SOON);
    assert!(!owned.table().header().is_loaded());
    let said = lines(&reader);
    assert!(
        said.len() == 1
            && said[0].text.contains("; the table is incomplete until Redis answers, source=redis://127.0.0.1:"),
        "{said:?}"
    );
}

#[test]
fn pushed_changes_are_applied() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    following(&settings(&redis.url()), |table| {
        let becomes = |pairs: &[(&str, &str)]| {
            let want = map(pairs);
            wait_for(&format!("{want:?}"), || routes(table) == want);
        };
        becomes(&[("a .*", "http://10.0.0.1:1")]);
        redis.cli(&["HSET", "prefix:b", "/x", "http://10.0.0.2:1"]);
        becomes(&[("a .*", "http://10.0.0.1:1"), ("b /x", "http://10.0.0.2:1")]);
        redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.9:9"]);
        becomes(&[("a .*", "http://10.0.0.9:9"), ("b /x", "http://10.0.0.2:1")]);
        redis.cli(&["HDEL", "prefix:b", "/x"]);
        becomes(&[("a .*", "http://10.0.0.9:9")]);
        redis.cli(&["RENAME", "prefix:a", "prefix:c"]);
        becomes(&[("c .*", "http://10.0.0.9:9")]);
        redis.cli(&["DEL", "prefix:c"]);
        becomes(&[]);
        redis.cli(&["SADD", "prefix:c", "http://10.0.0.1:1"]);
        becomes(&[("c .*", "http://10.0.0.1:1")]);
        redis.cli(&["EVAL", "redis.call('DEL', 'prefix:c') redis.call('SET', 'prefix:c', 'x')", "0"]);
        becomes(&[]);
        redis.cli(&[
            "EVAL",
            "redis.call('DEL', 'prefix:c') redis.call('HSET', 'prefix:c', '.*', 'http://10.0.0.1:2')",
            "0",
        ]);
        becomes(&[("c .*", "http://10.0.0.1:2")]);
        redis.cli(&["HSET", "prefix:c", ".*", "nonsense"]);
        becomes(&[]);
        redis.cli(&["HSET", "prefix:c", ".*", "http://10.0.0.1:3"]);
        becomes(&[("c .*", "http://10.0.0.1:3")]);
        redis.cli(&["PEXPIRE", "prefix:c", "1"]);
        becomes(&[]);
        assert_eq!(table.header().rejected(), 0);
    });
}

#[test]
fn redirects_and_domains_are_followed_like_tools() {
    let mut redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    let script = |redis: &RedisServer, lines: &str| drop(redis.cli(&["EVAL", lines, "0"]));
    let tool = ("a .*", "http://10.0.0.1:1");
    following(&settings(&redis.url()), |table| {
        let becomes = |others: &[(&str, &str)]| {
            let want = map(&[&[tool], others].concat());
            wait_for(&format!("{want:?}"), || routes(table) == want);
        };
        becomes(&[]);
        // A redirect needs no routes of its tool; its values do not count.
        redis.cli(&["HSET", "redirect:b", "(", "https://evil.example/"]);
        becomes(&[("/rb", "")]);
        redis.cli(&["SADD", "frontend:a", "http://10.0.0.2:2", "http://10.0.0.1:1", "nonsense"]);
        becomes(&[("/rb", ""), ("/da .*", "http://10.0.0.1:1 http://10.0.0.2:2")]);
        redis.cli(&["SREM", "frontend:a", "http://10.0.0.2:2"]);
        becomes(&[("/rb", ""), ("/da .*", "http://10.0.0.1:1")]);
        redis.cli(&["RENAME", "frontend:a", "frontend:*.b.org"]);
        becomes(&[("/rb", ""), ("/d*.b.org .*", "http://10.0.0.1:1")]);
        // Values of the wrong type are rejected.
        script(&redis, "redis.call('DEL', 'redirect:b') redis.call('SADD', 'redirect:b', 'x')");
        script(
            &redis,
            "redis.call('DEL', 'frontend:*.b.org') redis.call('HSET', 'frontend:*.b.org', '.*', 'http://10.0.0.1:1')",
        );
        becomes(&[]);
        wait_for("rejected", || table.header().rejected() == 2);
        redis.cli(&["DEL", "redirect:b", "frontend:*.b.org"]);
        wait_for("none rejected", || table.header().rejected() == 0);
        // Invalid hosts, and a domain that is not normalized.
        for key in ["redirect:A", "redirect:a.b", "redirect:"] {
            redis.cli(&["HSET", key, ".*", "x"]);
        }
        for key in ["frontend:A.org", "frontend:a.org.", "frontend:", "frontend:a/b", "frontend:*"] {
            redis.cli(&["SADD", key, "http://10.0.0.1:1"]);
        }
        wait_for("rejected", || table.header().rejected() == 8);
        becomes(&[]);
        // A tool name that looks like the key of another kind.
        redis.cli(&["SADD", "frontend:x.org", "http://10.0.0.1:1"]);
        redis.cli(&["HSET", "prefix:/dx.org", ".*", "http://10.0.0.6:6"]);
        redis.cli(&["DEL", "prefix:/dx.org"]);
        redis.cli(&["HSET", "redirect:z", ".*", "x"]);
        becomes(&[("/dx.org .*", "http://10.0.0.1:1"), ("/rz", "")]);
        // A scan finds changes made while the source was down.
        redis.stop();
        redis.start_again();
        script(
            &redis,
            "redis.call('HSET', 'prefix:a', '.*', 'http://10.0.0.1:1') redis.call('HSET', 'redirect:y', '.*', 'x') \
             redis.call('SADD', 'frontend:y.org', 'http://10.0.0.1:1')",
        );
        becomes(&[("/dy.org .*", "http://10.0.0.1:1"), ("/ry", "")]);
    });
}

#[test]
fn registered_routes_appear_and_unregistered_ones_disappear() {
    let redis = RedisServer::start(&[]);
    let mut client = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let (tool, pattern) = (ToolName::try_new(b"hello").unwrap(), Pattern::try_new("/x.*").unwrap());
    let backend: Backend = "http://10.0.0.1:8000".parse().unwrap();
    let origin = Origin {
        source: "test".into(),
        owner: "tools.hello".into(),
        host: "10.0.0.1".into(),
        since: 1,
        destination: None,
    };
    following(&settings(&redis.url()), |table| {
        let call = registry::register(&tool, &pattern, &backend, None, &origin, Ownership::Unproven).unwrap();
        assert_eq!(call.invoke(&mut client).unwrap(), Registration::Done { evicted: None, is_new: true });
        wait_for("registered", || routes(table) == map(&[("hello /x.*", "http://10.0.0.1:8000")]));
        let stored: Origin = serde_json::from_str(&redis.cli(&["HGET", "origin:hello", "/x.*"])).unwrap();
        assert_eq!(stored, origin);
        assert_eq!(registry::unregister_url(&tool, "/x.*", &backend).invoke(&mut client).unwrap(), Withdrawal::Removed);
        wait_for("unregistered", || routes(table).is_empty());
        assert_eq!(redis.cli(&["EXISTS", "prefix:hello", "origin:hello", "addresses"]), "0");
    });
}

#[test]
fn changes_during_an_outage_are_found_by_the_scan() {
    let mut redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:kept", ".*", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", "prefix:gone", ".*", "http://10.0.0.1:1"]);
    let before = map(&[("gone .*", "http://10.0.0.1:1"), ("kept .*", "http://10.0.0.1:1")]);
    let said = following(&settings(&redis.url()), |table| {
        wait_for("loaded", || routes(table) == before);
        redis.stop();
        assert_eq!(routes(table), before);
        redis.start_again();
        // The new server's first data; until the companion has scanned it, the table keeps its routes.
        redis.cli(&["EVAL", "redis.call('HSET', 'prefix:kept', '.*', 'http://10.0.0.1:1') redis.call('HSET', 'prefix:new', '.*', 'http://10.0.0.1:2')", "0"]);
        let after = map(&[("kept .*", "http://10.0.0.1:1"), ("new .*", "http://10.0.0.1:2")]);
        wait_for("in step again", || routes(table) == after);
    });
    let texts: Vec<_> = said.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(texts.iter().filter(|t| t.contains("in step again")).count(), 1, "{texts:?}");
}

#[test]
fn flushall_and_swapdb_are_noticed() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    redis.cli(&["-n", "1", "HSET", "prefix:b", ".*", "http://10.0.0.1:1"]);
    let quick = Settings { resync_interval: Duration::from_millis(200), ..settings(&redis.url()) };
    following(&quick, |table| {
        wait_for("loaded", || routes(table).contains_key("a .*"));
        // SWAPDB sends no push; only a resync finds it.
        redis.cli(&["SWAPDB", "0", "1"]);
        wait_for("swapped", || routes(table) == map(&[("b .*", "http://10.0.0.1:1")]));
        redis.cli(&["FLUSHALL"]);
        wait_for("flushed", || routes(table).is_empty());
    });
}

#[test]
fn scans_cover_many_pages() {
    let redis = RedisServer::start(&[]);
    let script = "for i = 1, 1900 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:' .. i) end \
                  for i = 1, 100 do redis.call('SADD', 'prefix:s' .. i, 'http://10.0.0.1:' .. i) end \
                  for i = 1, 5000 do redis.call('SET', 'other:' .. i, 1) end";
    redis.cli(&["EVAL", script, "0"]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, _reader) = Journal::new(100);
    assert!(load_once(owned.table(), &settings(&redis.url()), Instant::now() + SOON, &journal));
    let loaded = routes(owned.table());
    assert_eq!(loaded.len(), 2000);
    assert_eq!(loaded["t1234 .*"], "http://10.0.0.1:1234");
}

#[test]
fn a_full_table_rejects_only_the_surplus() {
    let redis = RedisServer::start(&[]);
    redis.cli(&[
        "EVAL",
        "for i = 1, 30 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:' .. i) end",
        "0",
    ]);
    let owned = OwnedTable::new(Capacity { buckets: 8, cells: 64, tools: 20, health: 1, ..Capacity::NONE });
    let (journal, reader) = Journal::new(100);
    assert!(load_once(owned.table(), &settings(&redis.url()), Instant::now() + SOON, &journal));
    assert_eq!(routes(owned.table()).len(), 20);
    assert_eq!((owned.table().header().rejected(), owned.table().header().refused_full()), (10, 10));
    assert!(lines(&reader).iter().any(|e| e.text.contains("the table is full")));
}

#[test]
fn too_large_keys_are_rejected_until_they_shrink() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["EVAL", "redis.call('HSET', 'prefix:big', string.rep('x', 2000000), 'http://10.0.0.1:1')", "0"]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    let quick = Settings { resync_interval: Duration::from_millis(200), ..settings(&redis.url()) };
    let said = following(&quick, |table| {
        wait_for("loaded", || table.header().is_loaded() && routes(table).contains_key("a .*"));
        redis.cli(&["HSET", "prefix:b", ".*", "http://10.0.0.1:2"]);
        wait_for("other changes arrive", || routes(table).contains_key("b .*"));
        assert_eq!(table.header().rejected(), 1);
        redis.cli(&["DEL", "prefix:big"]);
        redis.cli(&["HSET", "prefix:big", ".*", "http://10.0.0.1:3"]);
        wait_for("readable again", || routes(table).contains_key("big .*"));
        wait_for("none rejected", || table.header().rejected() == 0);
    });
    let texts: Vec<_> = said.iter().map(|e| e.text.as_str()).collect();
    let rejections = texts.iter().filter(|t| t.contains("too large to be read, tool=\"big\"")).count();
    assert_eq!(rejections, 1, "{texts:?}");
}

#[test]
fn a_stopped_companion_releases_the_lock() {
    let redis = RedisServer::start(&[]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let lock = WriterLock::create("released").unwrap();
    assert!(!is_locked("released"));
    let (deadline, was_locked) = (Instant::now() + SOON, AtomicBool::new(false));
    let stop = || {
        let is_following = owned.table().header().is_loaded();
        was_locked.store(is_locked("released"), Relaxed);
        is_following && was_locked.load(Relaxed) || Instant::now() > deadline
    };
    run(owned.table(), &settings(&redis.url()), &lock, &journal, &stop);
    assert!(was_locked.load(Relaxed), "held while it followed");
    assert!(!is_locked("released"));
    assert!(lines(&reader).iter().all(|e| !e.text.contains("writer lock")));
}
