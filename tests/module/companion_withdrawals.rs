//! Sources that lose routes or are down: which routes are held, and the table's age.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use urlproxy::route::Kind;
use urlproxy::sync::{Entry, Journal, Settings, SnapshotSettings, WriterLock, load_once, run};
use urlproxy::table::{Capacity, OwnedTable, Table};
use urlproxy::withdrawal_guard::GuardSettings;

use crate::following::{CAPACITY, following, lines, map, routes, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Registers a range of tools at once.
fn register_many(redis: &RedisServer, tools: std::ops::Range<u32>) {
    let script = "for i = ARGV[1], ARGV[2] do redis.call('HSET', 'prefix:tool-' .. i, '.*', 'http://10.0.0.1:1') end";
    redis.cli(&["EVAL", script, "0", &tools.start.to_string(), &(tools.end - 1).to_string()]);
}

#[test]
fn mass_withdrawals_are_held_while_other_changes_apply() {
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
        wait_for("a held tool returns elsewhere", || {
            routes(table).get("tool-7 .*").is_some_and(|b| b == "http://10.0.0.2:7")
        });
        redis.cli(&["DEL", "prefix:tool-7"]);
        wait_for("a deleted key is withdrawn at once", || !routes(table).contains_key("tool-7 .*"));
        assert_eq!(header.live_tools(), 60);
        std::fs::write(&accept, "").unwrap();
        wait_for("accepted", || routes(table) == map(&[("new .*", "http://10.0.0.2:1")]));
        assert_eq!(header.held(), 0);
    });
    let is_of_guard = |e: &&Entry| e.text.starts_with("withdrawal guard: ");
    let warned: Vec<_> = said.iter().filter(is_of_guard).map(|e| &e.text).collect();
    assert_eq!(warned.len(), 2, "{said:?}");
    assert!(
        warned[0]
            .starts_with("withdrawal guard: the source lacks 60 of 60 tools; missing routes stay in service for 600 s"),
        "{warned:?}"
    );
    assert!(warned[1].contains("withdrawing 59 of 60 tools: accepted"), "{warned:?}");
}

#[test]
fn holds_expire_and_recovered_sources_lose_nothing() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..60);
    let guard = |hold| GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let brief = Settings { withdrawal_guard: Some(guard(Duration::from_secs(1))), ..settings(&redis.url()) };
    following(&brief, |table| {
        wait_for("loaded", || table.header().live_tools() == 60);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || table.header().held() == 60);
        wait_for("withdrawn", || table.header().live_tools() == 0);
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
    assert!(
        said.iter()
            .any(|e| e.text.starts_with("withdrawal guard: the source has all routes again; hold ended, held=60")),
        "{said:?}"
    );
}

#[test]
fn a_flush_right_after_rewriting_all_keys_is_held() {
    let redis = RedisServer::start(&[]);
    register_many(&redis, 0..300);
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    let guarded = Settings { withdrawal_guard: Some(guard), ..settings(&redis.url()) };
    following(&guarded, |table| {
        wait_for("loaded", || table.header().live_tools() == 300);
        // Each key is pushed as changed, and is gone before the companion can fetch it.
        let script = "for i = 0, 299 do redis.call('HSET', 'prefix:tool-' .. i, '.*', 'http://10.0.0.9:1') end \
                      redis.call('FLUSHALL')";
        redis.cli(&["EVAL", script, "0"]);
        wait_for("held", || table.header().held() > 0);
        assert_eq!(table.header().live_tools(), 300);
    });
}

#[test]
fn cold_starts_serve_the_snapshot_and_hold_it_against_an_empty_redis() {
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
    // The snapshot is written once more at the end.
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
    assert!(texts[0].starts_with("snapshot restored, tools=61 age=") && texts[0].contains(" s path="), "{texts:?}");
    assert!(texts[1].contains("loading routes failed: ") && texts[1].contains("; serving the snapshot, source="));
    redis.start_again();
    let emptied = OwnedTable::new(CAPACITY);
    let (loaded, said) = start(emptied.table());
    assert!(loaded && emptied.table().header().live_tools() == 61, "{said:?}");
    assert_eq!(emptied.table().header().held(), 61);
    std::fs::write(&path, "nonsense").unwrap();
    let damaged = OwnedTable::new(CAPACITY);
    let (loaded, said) = start(damaged.table());
    assert!(loaded && damaged.table().header().live_tools() == 0);
    assert!(said[0].text.starts_with("snapshot ignored: damaged: "), "{said:?}");
}

#[test]
fn a_flush_in_the_middle_of_a_scan_is_held_completely() {
    const TOOLS: u64 = 6_000;
    let redis = RedisServer::start(&[]);
    let hold = Duration::from_secs(600);
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/nonexistent/accept".into() };
    // One scan after the other, each of many pages.
    let busy =
        Settings { withdrawal_guard: Some(guard), resync_interval: Duration::from_millis(1), ..settings(&redis.url()) };
    let owned = OwnedTable::new(Capacity { buckets: 2048, cells: 16_384, tools: 8192, health: 1, ..Capacity::NONE });
    let table = owned.table();
    let (journal, _reader) = Journal::new(10);
    let lock = WriterLock::create("test").unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| run(table, &busy, &lock, &journal, &|| stop.load(Relaxed)));
        let outcome = std::panic::catch_unwind(|| {
            for round in 0..8 {
                register_many(&redis, 0..TOOLS as u32);
                wait_for("all are there", || table.header().live_tools() == TOOLS && table.header().held() == 0);
                // Anywhere in a scan.
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
fn new_tools_do_not_compensate_for_missing_ones() {
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
        // Another database with different tools, as from a wrong dump.
        redis.cli(&["EVAL", "redis.call('SELECT', 1) for i = 1, 80 do redis.call('HSET', 'prefix:other-' .. i, '.*', 'http://10.0.0.1:1') end", "0"]);
        redis.cli(&["SWAPDB", "0", "1"]);
        wait_for("held", || table.header().held() == 60);
        assert_eq!(table.header().live_tools(), 140);
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
        // Without pushes: another database without the domains replaces this one.
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
        said.iter().any(|e| e
            .text
            .starts_with("withdrawal guard: the source lacks 30 of 30 domains; missing routes stay in service")),
        "{said:?}"
    );
}

#[test]
fn tables_age_during_an_outage_but_not_during_a_hold() {
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
        // Three scans later, so that an age would be visible.
        wait_for("held", || header.held() == 20 && header.synced_at() >= synced_at + 3);
        wait_for("no age while held", || age() == Some(0));
        redis.stop();
        wait_for("an age", || age().is_some_and(|age| age >= 3));
        assert_eq!(header.live_tools(), 20);
        redis.start_again();
        wait_for("in step again", || age() == Some(0));
    });
}

/// A server that accepts connections but does not answer is not in step.
#[test]
fn tables_age_while_the_source_hangs() {
    let redis = RedisServer::start(&[]);
    following(&settings(&redis.url()), |table| {
        let header = table.header();
        let age = || header.age_seconds(unix_seconds());
        // By pings alone: the last scan was some seconds ago.
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
