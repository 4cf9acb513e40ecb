//! Holds against a real Redis: they end despite lost connections, and the accept file ends them for all or some routes.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use urlproxy::registry;
use urlproxy::sync::{Journal, Settings, WriterLock, run};
use urlproxy::table::OwnedTable;
use urlproxy::withdrawal_guard::GuardSettings;

use crate::following::{CAPACITY, following, routes, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for, wait_within};

/// 40 tools, 5 redirects and 5 domains.
fn register_all(redis: &RedisServer) {
    let script = "for i = 1, 40 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:1') end
        for i = 1, 5 do
            redis.call('HSET', 'redirect:t' .. i, '.*', 'x')
            redis.call('SADD', 'frontend:d' .. i .. '.org', 'http://10.0.0.1:1')
        end";
    redis.cli(&["EVAL", script, "0"]);
}

fn guarded(redis: &RedisServer, hold: Duration, accept: &Path) -> Settings {
    let guard = GuardSettings { percent: 50, floor: 20, hold, accept: accept.into() };
    Settings { withdrawal_guard: Some(guard), ..settings(&redis.url()) }
}

#[test]
fn lost_connections_prolong_a_hold_at_most_to_twice_its_time() {
    let redis = RedisServer::start(&[]);
    register_all(&redis);
    let hold = Duration::from_secs(2);
    let said = following(&guarded(&redis, hold, Path::new("/nonexistent/accept")), |table| {
        wait_for("loaded", || table.header().live_tools() == 40);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || table.header().held() == 50);
        // No connection lives as long as the hold.
        let killed = Cell::new(Instant::now());
        wait_for("withdrawn all the same", || {
            if killed.get().elapsed() > hold / 4 {
                redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
                killed.set(Instant::now());
            }
            table.header().live_tools() == 0
        });
        assert_eq!(table.header().held(), 0);
    });
    let texts: Vec<_> = said.iter().map(|entry| entry.text.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("hold restarted; it ends in")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains(": held for ")), "{texts:?}");
}

#[test]
fn reloads_with_another_source_do_not_prolong_a_hold_either() {
    let redis = RedisServer::start(&[]);
    register_all(&redis);
    let hold = Duration::from_secs(2);
    let settings = Settings { is_new_source: true, ..guarded(&redis, hold, Path::new("/nonexistent/accept")) };
    let owned = OwnedTable::new(CAPACITY);
    let header = owned.table().header();
    // One companion after the other on the same table, each for at most a quarter of the hold.
    let deadline = Instant::now() + SOON;
    for life in 0.. {
        assert!(Instant::now() < deadline, "still held");
        let (journal, _reader) = Journal::new(100);
        let lock = WriterLock::create("test").unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| run(owned.table(), &settings, &lock, &journal, &|| stop.load(Relaxed)));
            if life == 0 {
                let begun = Instant::now();
                while header.live_tools() < 40 && begun.elapsed() < SOON {
                    thread::yield_now();
                }
                redis.cli(&["FLUSHALL"]);
            }
            let begun = Instant::now();
            while begun.elapsed() < hold / 4 && !(life > 0 && header.live_tools() == 0) {
                thread::yield_now();
            }
            stop.store(true, Relaxed);
        });
        assert!(life > 0 || header.held() == 50);
        if header.live_tools() == 0 {
            assert!(life > 3, "held for its time: {life}");
            break;
        }
    }
    assert_eq!(header.held(), 0);
}

#[test]
fn names_accept_single_routes_and_an_empty_file_the_rest() {
    let redis = RedisServer::start(&[]);
    register_all(&redis);
    let dir = tempfile::tempdir().unwrap();
    let accept = dir.path().join("accept");
    let said = following(&guarded(&redis, Duration::from_secs(600), &accept), |table| {
        wait_for("loaded", || table.header().live_tools() == 40);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || table.header().held() == 50);
        redis.cli(&["HSET", "prefix:t9", ".*", "http://10.0.0.2:1"]);
        wait_for("it is back", || routes(table).get("t9 .*").is_some_and(|url| url == "http://10.0.0.2:1"));
        let names = "# ticket 7\nt1\n\nredirect:t1\nfrontend:d3.org\nprefix:t2\nt9\nnone\n";
        std::fs::write(&accept, names).unwrap();
        wait_for("four are gone", || routes(table).len() == 50 - 4);
        let left = routes(table);
        for gone in ["t1 .*", "/rt1", "/dd3.org .*", "t2 .*"] {
            assert!(!left.contains_key(gone), "{gone}: {left:?}");
        }
        assert_eq!((table.header().held(), left.get("t9 .*").map(String::as_str)), (45, Some("http://10.0.0.2:1")));
        std::fs::write(&accept, "t3").unwrap();
        wait_for("and another", || table.header().held() == 44);
        assert!(!routes(table).contains_key("t3 .*") && routes(table).contains_key("t4 .*"));
        std::fs::write(&accept, "").unwrap();
        wait_for("the rest", || routes(table).len() == 1);
        assert_eq!(table.header().held(), 0);
    });
    let texts: Vec<_> = said.iter().map(|entry| entry.text.as_str()).collect();
    let path = accept.display();
    for line in [
        format!("withdrawal guard: {path} names routes that are not held; ignoring \"prefix:none\", \"prefix:t9\""),
        format!("withdrawal guard: withdrawing 4 of 49 missing entries, named in {path}; 45 stay held"),
        format!("withdrawal guard: withdrawing 1 of 45 missing entries, named in {path}; 44 stay held"),
    ] {
        assert!(texts.contains(&line.as_str()), "{line}: {texts:?}");
    }
    assert_eq!(redis.cli(&["KEYS", registry::FOLLOWED_GLOB]), "prefix:t9");
}

#[test]
fn queued_keys_are_held_like_others() {
    let redis = RedisServer::start(&[]);
    register_all(&redis);
    let heavy = |port: u16, from: u16| {
        let patterns = (from..from + 30).map(|n| format!("x{n}[ab]*a[ab]{{6}}$"));
        let fields = patterns.flat_map(|pattern| [pattern, format!("http://10.0.0.1:{port}")]);
        let args: Vec<_> = ["HSET".to_owned(), "prefix:heavy".to_owned()].into_iter().chain(fields).collect();
        redis.cli(&args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let hold = Duration::from_secs(600);
    following(&guarded(&redis, hold, Path::new("/nonexistent/accept")), |table| {
        let has = |port: u16| routes(table).values().any(|url| *url == format!("http://10.0.0.1:{port}"));
        wait_for("loaded", || table.header().live_tools() == 40);
        heavy(2, 10);
        // A debug build, with low CPU priority.
        wait_within(Duration::from_secs(120), "built", || has(2));
        // The key has just had its turn and pauses.
        heavy(3, 50);
        redis.cli(&["FLUSHALL"]);
        wait_for("held", || table.header().held() >= 50);
        // Longer than any pause.
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(table.header().live_tools(), 41);
    });
}
