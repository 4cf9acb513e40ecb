//! The companion against a real Redis: whatever happens there, the table follows, and loses nothing on the way.

#[path = "common/following.rs"]
mod follow;
#[path = "common/port.rs"]
mod port;
#[path = "common/redis.rs"]
mod redis_server;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use follow::{CAPACITY, DEADLINE, following, is_locked, lines, map, routes, settings, wait_for, wait_until};
use redis_server::RedisServer;
use urlproxy::registry::{self, Origin, Ownership, Registration, Withdrawal};
use urlproxy::route::{Backend, Kind, Pattern, ToolName};
use urlproxy::sync::{GuardSettings, Journal, Lease, Settings, SnapshotSettings, load_once, run};
use urlproxy::table::{Capacity, OwnedTable, Table};

#[test]
fn first_load_takes_everything_and_sets_the_bad_aside() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1", "/x", "https://10.0.0.2:2", "(", "http://10.0.0.1:3"]);
    redis.cli(&["SADD", "prefix:b", "http://10.0.0.1:1", "http://10.0.0.2:1", "nonsense"]);
    redis.cli(&["SET", "prefix:string", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", &format!("prefix:{}", "x".repeat(256)), ".*", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", "redirect:a", ".*", "elsewhere"]);
    redis.cli(&["SADD", "frontend:www.a.org", "http://10.0.0.1:1"]);
    // Keys that look like those that are followed, and are none.
    redis.cli(&["HSET", "origin:a", ".*", "{}"]);
    redis.cli(&["SADD", "predicate:a", "http://10.0.0.1:1"]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let deadline = Instant::now() + DEADLINE;
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
        assert!(said.iter().any(|line| line.starts_with("route set aside") && line.contains(want)), "{want}: {said:?}");
    }
}

#[test]
fn first_load_of_an_empty_source_is_a_load() {
    let redis = RedisServer::start(&[]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, _reader) = Journal::new(100);
    assert!(load_once(owned.table(), &settings(&redis.url()), Instant::now() + DEADLINE, &journal));
    assert!(owned.table().header().is_loaded() && routes(owned.table()).is_empty());
}

#[test]
fn first_load_gives_up_in_time() {
    let mut redis = RedisServer::start(&[]);
    redis.stop();
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let start = Instant::now();
    assert!(!load_once(owned.table(), &settings(&redis.url()), start + Duration::from_millis(300), &journal));
    assert!(start.elapsed() < DEADLINE);
    assert!(!owned.table().header().is_loaded());
    let said = lines(&reader);
    assert!(said.len() == 1 && said[0].text.contains("while loading routes, source=redis://127.0.0.1:"), "{said:?}");
}

#[test]
fn each_change_is_followed_through_pushes() {
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
fn redirects_and_domains_are_followed_as_tools_are() {
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
        // A redirect needs no routes of its tool; what its values say does not count.
        redis.cli(&["HSET", "redirect:b", "(", "https://evil.example/"]);
        becomes(&[("/rb", "")]);
        redis.cli(&["SADD", "frontend:a", "http://10.0.0.2:2", "http://10.0.0.1:1", "nonsense"]);
        becomes(&[("/rb", ""), ("/da .*", "http://10.0.0.1:1 http://10.0.0.2:2")]);
        redis.cli(&["SREM", "frontend:a", "http://10.0.0.2:2"]);
        becomes(&[("/rb", ""), ("/da .*", "http://10.0.0.1:1")]);
        redis.cli(&["RENAME", "frontend:a", "frontend:*.b.org"]);
        becomes(&[("/rb", ""), ("/d*.b.org .*", "http://10.0.0.1:1")]);
        // Of another type than theirs they are set aside.
        script(&redis, "redis.call('DEL', 'redirect:b') redis.call('SADD', 'redirect:b', 'x')");
        script(
            &redis,
            "redis.call('DEL', 'frontend:*.b.org') redis.call('HSET', 'frontend:*.b.org', '.*', 'http://10.0.0.1:1')",
        );
        becomes(&[]);
        wait_for("told", || table.header().rejected() == 2);
        redis.cli(&["DEL", "redirect:b", "frontend:*.b.org"]);
        wait_for("mended", || table.header().rejected() == 0);
        // Names that no host has, and a domain that is not written as it is compared.
        for key in ["redirect:A", "redirect:a.b", "redirect:"] {
            redis.cli(&["HSET", key, ".*", "x"]);
        }
        for key in ["frontend:A.org", "frontend:a.org.", "frontend:", "frontend:a/b", "frontend:*"] {
            redis.cli(&["SADD", key, "http://10.0.0.1:1"]);
        }
        wait_for("told", || table.header().rejected() == 8);
        becomes(&[]);
        // A tool's name may look like the key of another kind.
        redis.cli(&["SADD", "frontend:x.org", "http://10.0.0.1:1"]);
        redis.cli(&["HSET", "prefix:/dx.org", ".*", "http://10.0.0.6:6"]);
        redis.cli(&["DEL", "prefix:/dx.org"]);
        redis.cli(&["HSET", "redirect:z", ".*", "x"]);
        becomes(&[("/dx.org .*", "http://10.0.0.1:1"), ("/rz", "")]);
        // What changed while the source was away is found by comparison.
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
fn domains_alone_are_guarded_too() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..300);
    let domains = "for i = 1, 30 do redis.call(ARGV[1], 'frontend:d' .. i .. '.org', 'http://10.0.0.1:1') end";
    redis.cli(&["EVAL", domains, "0", "SADD"]);
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let brief = Duration::from_millis(300);
    let guarded = Settings { withdrawal_guard: Some(guard), resync_interval: brief, ..settings(&redis.url()) };
    let said = following(&guarded, |table| {
        wait_for("loaded", || table.header().live(Kind::Domain) == 30);
        // Unseen by the pushes: another database without them takes this one's place.
        let script = "for i = 0, 299 do redis.call('HSET', 'prefix:tool-' .. i, '.*', 'http://10.0.0.1:1') end";
        redis.cli(&["-n", "1", "EVAL", script, "0"]);
        redis.cli(&["SWAPDB", "0", "1"]);
        wait_for("held", || table.header().held() == 30);
        assert_eq!((table.header().live_tools(), table.header().live(Kind::Domain)), (300, 30));
        redis.cli(&["SWAPDB", "0", "1"]);
        wait_for("all are back", || table.header().held() == 0);
        assert_eq!(table.header().live(Kind::Domain), 30);
    });
    assert!(
        said.iter().any(|e| e.text.starts_with("the source lacks 30 of 30 domains; they are served on")),
        "{said:?}"
    );
}

#[test]
fn what_the_registry_writes_is_routed_and_what_it_removes_is_not() {
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
fn what_changed_while_the_source_was_away_is_found_by_comparison() {
    let mut redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:kept", ".*", "http://10.0.0.1:1"]);
    redis.cli(&["HSET", "prefix:gone", ".*", "http://10.0.0.1:1"]);
    let before = map(&[("gone .*", "http://10.0.0.1:1"), ("kept .*", "http://10.0.0.1:1")]);
    let said = following(&settings(&redis.url()), |table| {
        wait_for("loaded", || routes(table) == before);
        redis.stop();
        assert_eq!(routes(table), before);
        redis.start_again();
        // The new server's first data; until the companion has compared, the table serves what it had.
        redis.cli(&["EVAL", "redis.call('HSET', 'prefix:kept', '.*', 'http://10.0.0.1:1') redis.call('HSET', 'prefix:new', '.*', 'http://10.0.0.1:2')", "0"]);
        let after = map(&[("kept .*", "http://10.0.0.1:1"), ("new .*", "http://10.0.0.1:2")]);
        wait_for("in step again", || routes(table) == after);
    });
    let texts: Vec<_> = said.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(texts.iter().filter(|t| t.contains("in step again")).count(), 1, "{texts:?}");
}

#[test]
fn the_tables_age_grows_while_the_source_is_away_and_a_held_withdrawal_makes_none() {
    let mut redis = RedisServer::start(&[]);
    register_many(&redis, 0..20);
    let accept = redis.dir().join("accept");
    let guard = GuardSettings { percent: 50, floor: 2, hold: Duration::from_secs(3600), accept };
    let settings =
        Settings { withdrawal_guard: Some(guard), resync_interval: Duration::from_secs(1), ..settings(&redis.url()) };
    following(&settings, |table| {
        let header = table.header();
        let age = || header.age_seconds(unix_seconds());
        wait_for("in step", || age() == Some(0));
        let synced_at = header.synced_at();
        redis.cli(&["FLUSHALL"]);
        // Three comparisons later, so that an age would show.
        let minute = Duration::from_secs(60);
        wait_until(minute, "held", || header.held() == 20 && header.synced_at() >= synced_at + 3);
        wait_for("no age while held", || age() == Some(0));
        redis.stop();
        wait_for("an age", || age().is_some_and(|age| age >= 3));
        assert_eq!(header.live_tools(), 20);
        redis.start_again();
        wait_for("in step again", || age() == Some(0));
    });
}

/// A server that takes connections, and says nothing any more, is not in step.
#[test]
fn a_source_that_hangs_ages_the_table() {
    let redis = RedisServer::start(&[]);
    following(&settings(&redis.url()), |table| {
        let header = table.header();
        let age = || header.age_seconds(unix_seconds());
        // By its heartbeat alone: the comparison was some seconds ago.
        wait_for("in step", || header.is_loaded() && unix_seconds() >= header.synced_at() + 4 && age() == Some(0));
        redis.signal("STOP");
        wait_for("an age", || age().is_some_and(|age| age >= 3));
        redis.signal("CONT");
        wait_for("in step again", || age() == Some(0));
    });
}

fn unix_seconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

#[test]
fn flushall_and_swapdb_are_noticed() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    redis.cli(&["-n", "1", "HSET", "prefix:b", ".*", "http://10.0.0.1:1"]);
    let quick = Settings { resync_interval: Duration::from_millis(200), ..settings(&redis.url()) };
    following(&quick, |table| {
        wait_for("loaded", || routes(table).contains_key("a .*"));
        // No push tells of it: only the regular comparison does.
        redis.cli(&["SWAPDB", "0", "1"]);
        wait_for("swapped", || routes(table) == map(&[("b .*", "http://10.0.0.1:1")]));
        redis.cli(&["FLUSHALL"]);
        wait_for("flushed", || routes(table).is_empty());
    });
}

#[test]
fn many_tools_are_loaded_over_many_pages() {
    let redis = RedisServer::start(&[]);
    let script = "for i = 1, 1900 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:' .. i) end \
                  for i = 1, 100 do redis.call('SADD', 'prefix:s' .. i, 'http://10.0.0.1:' .. i) end \
                  for i = 1, 5000 do redis.call('SET', 'other:' .. i, 1) end";
    redis.cli(&["EVAL", script, "0"]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, _reader) = Journal::new(100);
    assert!(load_once(owned.table(), &settings(&redis.url()), Instant::now() + DEADLINE, &journal));
    let loaded = routes(owned.table());
    assert_eq!(loaded.len(), 2000);
    assert_eq!(loaded["t1234 .*"], "http://10.0.0.1:1234");
}

#[test]
fn a_full_table_refuses_the_surplus_and_nothing_else() {
    let redis = RedisServer::start(&[]);
    redis.cli(&[
        "EVAL",
        "for i = 1, 30 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:' .. i) end",
        "0",
    ]);
    let owned = OwnedTable::new(Capacity { buckets: 8, cells: 64, tools: 20, health: 1 });
    let (journal, reader) = Journal::new(100);
    assert!(load_once(owned.table(), &settings(&redis.url()), Instant::now() + DEADLINE, &journal));
    assert_eq!(routes(owned.table()).len(), 20);
    assert_eq!((owned.table().header().rejected(), owned.table().header().refused_full()), (10, 10));
    assert!(lines(&reader).iter().any(|e| e.text.contains("the table is full")));
}

#[test]
fn a_key_that_is_too_large_is_set_aside_alone_until_it_is_smaller() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["EVAL", "redis.call('HSET', 'prefix:big', string.rep('x', 2000000), 'http://10.0.0.1:1')", "0"]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
    let quick = Settings { resync_interval: Duration::from_millis(200), ..settings(&redis.url()) };
    let said = following(&quick, |table| {
        wait_for("loaded", || table.header().is_loaded() && routes(table).contains_key("a .*"));
        redis.cli(&["HSET", "prefix:b", ".*", "http://10.0.0.1:2"]);
        wait_for("others go on", || routes(table).contains_key("b .*"));
        assert_eq!(table.header().rejected(), 1);
        redis.cli(&["DEL", "prefix:big"]);
        redis.cli(&["HSET", "prefix:big", ".*", "http://10.0.0.1:3"]);
        wait_for("taken up again", || routes(table).contains_key("big .*"));
        wait_for("nothing set aside", || table.header().rejected() == 0);
    });
    let texts: Vec<_> = said.iter().map(|e| e.text.as_str()).collect();
    let told = texts.iter().filter(|t| t.contains("too large to be read, tool=\"big\"")).count();
    assert_eq!(told, 1, "{texts:?}");
}

#[test]
fn a_stopped_companion_gives_the_lease_back() {
    let redis = RedisServer::start(&[]);
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let lease = Lease::create("given-back").unwrap();
    assert!(!is_locked("given-back"));
    let (deadline, was_locked) = (Instant::now() + DEADLINE, AtomicBool::new(false));
    let stop = || {
        let is_following = owned.table().header().is_loaded();
        was_locked.store(is_locked("given-back"), Relaxed);
        is_following && was_locked.load(Relaxed) || Instant::now() > deadline
    };
    run(owned.table(), &settings(&redis.url()), &lease, &journal, &stop);
    assert!(was_locked.load(Relaxed), "held while it followed");
    assert!(!is_locked("given-back"));
    assert!(lines(&reader).iter().all(|e| !e.text.contains("lease")));
}

/// So many tools at once, as a store does that is filled.
fn register_many(redis: &RedisServer, tools: std::ops::Range<u32>) {
    let script = "for i = ARGV[1], ARGV[2] do redis.call('HSET', 'prefix:tool-' .. i, '.*', 'http://10.0.0.1:1') end";
    redis.cli(&["EVAL", script, "0", &tools.start.to_string(), &(tools.end - 1).to_string()]);
}

#[test]
fn a_mass_withdrawal_is_held_while_everything_else_goes_on() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..60);
    let dir = tempfile::tempdir().unwrap();
    let accept = dir.path().join("accept");
    let guard = GuardSettings { percent: 50, floor: 20, hold: Duration::from_secs(600), accept: accept.clone() };
    let guarded = Settings { withdrawal_guard: Some(guard), ..settings(&redis.url()) };
    let said = following(&guarded, |table| {
        let header = table.header();
        wait_for("loaded", || header.live_tools() == 60);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || header.held() == 60);
        redis.cli(&["HSET", "prefix:new", ".*", "http://10.0.0.2:1"]);
        wait_for("a new tool is routed", || routes(table).contains_key("new .*"));
        redis.cli(&["HSET", "prefix:tool-7", ".*", "http://10.0.0.2:7"]);
        wait_for("one comes back elsewhere", || {
            routes(table).get("tool-7 .*").is_some_and(|b| b == "http://10.0.0.2:7")
        });
        redis.cli(&["DEL", "prefix:tool-7"]);
        wait_for("what is deleted by name is gone at once", || !routes(table).contains_key("tool-7 .*"));
        assert_eq!(header.live_tools(), 60);
        std::fs::write(&accept, "").unwrap();
        wait_for("accepted", || routes(table) == map(&[("new .*", "http://10.0.0.2:1")]));
        assert_eq!(header.held(), 0);
    });
    let warned: Vec<_> = said.iter().filter(|e| e.text.contains("the source lacks")).map(|e| &e.text).collect();
    assert_eq!(warned.len(), 2, "{said:?}");
    assert!(warned[0].starts_with("the source lacks 60 of 60 tools; they are served on for 600 s"), "{warned:?}");
    assert!(warned[1].contains("withdrawing 59 of 60 tools that the source lacks: accepted"), "{warned:?}");
}

#[test]
fn a_hold_is_bounded_and_a_source_that_recovers_loses_nothing() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..60);
    let guard = |hold| GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let brief = Settings { withdrawal_guard: Some(guard(Duration::from_secs(1))), ..settings(&redis.url()) };
    following(&brief, |table| {
        wait_for("loaded", || table.header().live_tools() == 60);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || table.header().held() == 60);
        wait_for("let through", || table.header().live_tools() == 0);
    });
    register_many(&redis, 0..60);
    let long = Settings { withdrawal_guard: Some(guard(Duration::from_secs(600))), ..settings(&redis.url()) };
    let said = following(&long, |table| {
        wait_for("loaded", || table.header().live_tools() == 60);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || table.header().held() == 60);
        register_many(&redis, 0..60);
        wait_for("all are back", || table.header().held() == 0);
        assert_eq!(table.header().live_tools(), 60);
    });
    assert!(said.iter().any(|e| e.text.starts_with("the source has everything again, held=60")), "{said:?}");
}

#[test]
fn a_source_that_is_emptied_while_everything_is_written_anew_is_not_believed() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..300);
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let guarded = Settings { withdrawal_guard: Some(guard), ..settings(&redis.url()) };
    following(&guarded, |table| {
        wait_for("loaded", || table.header().live_tools() == 300);
        // Each key is pushed as changed, and is gone before anybody can ask for it.
        let script = "for i = 0, 299 do redis.call('HSET', 'prefix:tool-' .. i, '.*', 'http://10.0.0.9:1') end \
                      redis.call('FLUSHALL')";
        redis.cli(&["EVAL", script, "0"]);
        wait_for("held", || table.header().held() > 0);
        assert_eq!(table.header().live_tools(), 300);
    });
}

#[test]
fn a_cold_start_without_redis_serves_the_snapshot_and_an_empty_redis_is_not_believed() {
    let mut redis = RedisServer::start(&[]);
    register_many(&redis, 0..60);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tools.snapshot");
    let snapshot = SnapshotSettings { path: path.clone(), max_age: Duration::from_secs(3600), owners: vec![] };
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let kept = Settings { snapshot: Some(snapshot), withdrawal_guard: Some(guard), ..settings(&redis.url()) };
    let all = following(&kept, |table| {
        wait_for("loaded", || table.header().live_tools() == 60);
        wait_for("written", || path.exists());
        redis.cli(&["HSET", "prefix:late", ".*", "http://10.0.0.2:1"]);
        wait_for("followed", || table.header().live_tools() == 61);
    });
    assert!(all.iter().all(|e| !e.text.contains("snapshot")), "{all:?}");
    // At the end it is written once more.
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .contains(r#"{"key":"prefix:late","routes":{".*":["http://10.0.0.2:1"]}}"#)
    );
    redis.stop();
    let start = |table: Table<'_>| {
        let (journal, reader) = Journal::new(100);
        let loaded = load_once(table, &kept, Instant::now() + Duration::from_millis(300), &journal);
        (loaded, lines(&reader))
    };
    let without = OwnedTable::new(CAPACITY);
    let (loaded, said) = start(without.table());
    assert!(!loaded && without.table().header().is_loaded() && without.table().header().live_tools() == 61);
    let texts: Vec<_> = said.iter().map(|e| e.text.as_str()).collect();
    assert!(texts[0].starts_with("snapshot read, tools=61 age=") && texts[0].contains(" s path="), "{texts:?}");
    assert!(texts[1].contains("while loading routes") && texts[1].contains("; serving those of the snapshot, age="));
    redis.start_again();
    let emptied = OwnedTable::new(CAPACITY);
    let (loaded, said) = start(emptied.table());
    assert!(loaded && emptied.table().header().live_tools() == 61, "{said:?}");
    assert_eq!(emptied.table().header().held(), 61);
    std::fs::write(&path, "nonsense").unwrap();
    let damaged = OwnedTable::new(CAPACITY);
    let (loaded, said) = start(damaged.table());
    assert!(loaded && damaged.table().header().live_tools() == 0);
    assert!(said[0].text.starts_with("snapshot not used: it is damaged"), "{said:?}");
}

#[test]
fn a_flush_in_the_middle_of_a_comparison_is_held_whole() {
    const TOOLS: u64 = 6_000;
    let redis = RedisServer::start(&[]);
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    // One comparison after the other, each of many pages.
    let busy =
        Settings { withdrawal_guard: Some(guard), resync_interval: Duration::from_millis(1), ..settings(&redis.url()) };
    let owned = OwnedTable::new(Capacity { buckets: 2048, cells: 16_384, tools: 8192, health: 1 });
    let table = owned.table();
    let (journal, _reader) = Journal::new(10);
    let lease = Lease::create("test").unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| run(table, &busy, &lease, &journal, &|| stop.load(Relaxed)));
        let outcome = std::panic::catch_unwind(|| {
            for round in 0..8 {
                register_many(&redis, 0..TOOLS as u32);
                wait_for("all are there", || table.header().live_tools() == TOOLS && table.header().held() == 0);
                // Anywhere in a comparison.
                thread::sleep(Duration::from_millis(3 * round));
                redis.cli(&["FLUSHALL"]);
                wait_for("held", || table.header().held() > 0);
                assert_eq!(table.header().live_tools(), TOOLS, "round {round}");
            }
        });
        stop.store(true, Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn as_many_other_tools_do_not_make_up_for_those_that_are_missing() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..60);
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let guarded = Settings {
        withdrawal_guard: Some(guard),
        resync_interval: Duration::from_millis(100),
        ..settings(&redis.url())
    };
    following(&guarded, |table| {
        wait_for("loaded", || table.header().live_tools() == 60);
        // Another database with tools of its own, as from a wrong dump.
        redis.cli(&["EVAL", "redis.call('SELECT', 1) for i = 1, 80 do redis.call('HSET', 'prefix:other-' .. i, '.*', 'http://10.0.0.1:1') end", "0"]);
        redis.cli(&["SWAPDB", "0", "1"]);
        wait_for("held", || table.header().held() == 60);
        assert_eq!(table.header().live_tools(), 140);
    });
}
