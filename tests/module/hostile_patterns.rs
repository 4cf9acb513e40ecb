//! Tenants with the costliest patterns, against a real Redis: only their own changes wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use urlproxy::sync::Settings;
use urlproxy::table::{Capacity, Lookup, OwnedTable, Scratch, Table};

use crate::following::{following_in, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

const HOSTILE: usize = 20;
const CHANGES: u16 = 200;
/// Far above the usual delay of a change during the attack, below the 14 s without the build queue; on a busy machine, this many
/// times the delay without an attack.
const BOUND: Duration = Duration::from_secs(5);
const BOUND_TIMES: u32 = 50;

fn command(connection: &mut redis::Connection, args: &[&str]) {
    let mut command = redis::cmd(args[0]);
    args[1..].iter().for_each(|arg| _ = command.arg(arg));
    command.query::<redis::Value>(connection).unwrap_or_else(|e| panic!("{e}"));
}

fn connect(redis: &RedisServer) -> redis::Connection {
    redis::Client::open(redis.url()).and_then(|client| client.get_connection()).unwrap_or_else(|e| panic!("{e}"))
}

fn port_of(table: Table<'_>, tool: &str, scratch: &mut Scratch) -> Option<u16> {
    match table.lookup(tool.as_bytes(), scratch) {
        Lookup::Found(record) => record.routes().last()?.first_backend().map(|backend| backend.port),
        _ => None,
    }
}

/// Delays of an honest tool's changes, from the write to the table, while `attack` runs in a loop.
fn delays(redis: &RedisServer, table: Table<'_>, attack: impl Fn(&mut redis::Connection, u64) + Sync) -> Vec<Duration> {
    let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut delays = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = connect(redis);
            while !is_over.load(Relaxed) {
                attack(&mut connection, rounds.fetch_add(1, Relaxed));
            }
        });
        wait_for("the attack runs", || rounds.load(Relaxed) > 20);
        let mut connection = connect(redis);
        let mut scratch = Scratch::default();
        for n in 1..=CHANGES {
            let begun = Instant::now();
            command(&mut connection, &["HSET", "prefix:honest", ".*", &format!("http://10.0.0.1:{n}")]);
            while port_of(table, "honest", &mut scratch) != Some(n) {
                if begun.elapsed() > SOON {
                    is_over.store(true, Relaxed);
                    panic!("change {n} is not there after {SOON:?}");
                }
                thread::sleep(Duration::from_micros(200));
            }
            delays.push(begun.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Relaxed);
    });
    delays.sort_unstable();
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!("honest change: p50 {:?} p99 {:?} beside {} attacks", at(50), at(99), rounds.load(Relaxed));
    delays
}

fn p99(delays: &[Duration]) -> Duration {
    delays[(delays.len() - 1) * 99 / 100]
}

/// Checks that `attack` delays honest changes within bounds.
fn assert_bounded(redis: &RedisServer, table: Table<'_>, attack: impl Fn(&mut redis::Connection, u64) + Sync) {
    let calm = delays(redis, table, |_, _| thread::sleep(Duration::from_millis(1)));
    let attacked = delays(redis, table, attack);
    assert!(p99(&attacked) < BOUND.max(p99(&calm) * BOUND_TIMES), "{calm:?}\n{attacked:?}");
}

fn heavy(serial: u64) -> String {
    format!("x{serial:x}[ab]*a[ab]{{11}}$")
}

#[test]
fn patterns_costly_to_build_delay_only_their_own_tool() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    for tool in 0..HOSTILE as u64 {
        for n in 0..32 {
            command(
                &mut connection,
                &["HSET", &format!("prefix:hostile{tool}"), &heavy((tool << 32) | n), "http://10.0.0.2:1"],
            );
        }
    }
    let owned = OwnedTable::new(Capacity::of_bytes(16 << 20).unwrap_or_else(|e| panic!("{e}")));
    following_in(&owned, &settings(&redis.url()), |table| {
        wait_for("loaded", || table.header().is_loaded());
        assert_bounded(&redis, table, |connection, round| {
            let (tool, version) = (round % HOSTILE as u64, round / HOSTILE as u64);
            let key = format!("prefix:hostile{tool}");
            let (old, new) = (heavy((tool << 32) | version), heavy((tool << 32) | (version + 32)));
            command(connection, &["HDEL", &key, &old]);
            command(connection, &["HSET", &key, &new, "http://10.0.0.2:1"]);
            // Each tool some ten times a second.
            thread::sleep(Duration::from_millis(5));
        });
    });
}

#[test]
fn patterns_costly_to_parse_delay_only_their_own_tool() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    for n in 0..1000 {
        let pattern = format!("{n:04}{}", "[0-9]x(a|b)+".repeat(85).chars().take(1020).collect::<String>());
        command(&mut connection, &["HSET", "prefix:hostile", &pattern, "http://10.0.0.2:1"]);
    }
    let owned = OwnedTable::new(Capacity::of_bytes(16 << 20).unwrap_or_else(|e| panic!("{e}")));
    following_in(&owned, &settings(&redis.url()), |table| {
        wait_for("loaded", || table.header().is_loaded());
        assert_bounded(&redis, table, |connection, round| {
            command(connection, &["HSET", "prefix:hostile", "/", &format!("http://10.0.0.2:{}", 1 + round % 60_000)]);
            thread::sleep(Duration::from_millis(1));
        });
    });
}

#[test]
fn costly_tools_are_routed_later_and_survive_resyncs() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    let heavy = |connection: &mut redis::Connection, port: u16| {
        let url = format!("http://10.0.0.1:{port}");
        let texts: Vec<_> = (0..8).map(|n| format!("x{n:02}[ab]*a[ab]{{5}}$")).collect();
        let fields = texts.iter().flat_map(|text| [text.as_str(), &url]);
        command(connection, &["HSET", "prefix:heavy"].into_iter().chain(fields).collect::<Vec<_>>());
    };
    let answer = |table: Table<'_>, rest: &str| match table.lookup(&b"heavy"[..], &mut Scratch::default()) {
        Lookup::Found(record) => record.select(rest.as_bytes()).map(|r| (r.pattern.to_vec(), r.backend_count)),
        _ => None,
    };
    let owned = OwnedTable::new(Capacity::of_bytes(128 << 20).unwrap_or_else(|e| panic!("{e}")));
    let settings = Settings { resync_interval: Duration::from_millis(50), ..settings(&redis.url()) };
    following_in(&owned, &settings, |table| {
        heavy(&mut connection, 1);
        let last = Some((b"x07[ab]*a[ab]{5}$".to_vec(), 1));
        wait_for("built", || answer(table, "/x07aaaaaa") == last);
        assert!(answer(table, "/x06aaaaaa").is_some_and(|found| Some(found) != last));
        let (changes, synced) = (table.header().changes(), table.header().synced_at());
        wait_for("resynced", || table.header().synced_at() > synced + 1);
        assert_eq!(table.header().changes(), changes, "nothing was written again");
        heavy(&mut connection, 2);
        wait_for("moved", || port_of(table, "heavy", &mut Scratch::default()) == Some(2));
        assert_eq!(answer(table, "/x07aaaaaa"), last);
        command(&mut connection, &["DEL", "prefix:heavy"]);
        wait_for("gone", || answer(table, "/").is_none());
        // A key deleted while it is queued or built does not return.
        heavy(&mut connection, 3);
        command(&mut connection, &["DEL", "prefix:heavy"]);
        command(&mut connection, &["HSET", "prefix:last", ".*", "http://10.0.0.1:1"]);
        wait_for("the rest", || port_of(table, "last", &mut Scratch::default()) == Some(1));
        let synced = table.header().synced_at();
        wait_for("gone for good", || table.header().synced_at() > synced + 1 && answer(table, "/").is_none());
    });
}

#[test]
fn deferred_keys_are_retried_when_space_is_freed() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    for n in 0..100 {
        command(&mut connection, &["HSET", &format!("prefix:t{n}"), ".*", "http://10.0.0.1:1"]);
    }
    let owned = OwnedTable::new(Capacity { buckets: 32, cells: 64, tools: 128, health: 1, ..Capacity::NONE });
    // No resync helps.
    let settings = Settings { resync_interval: Duration::from_secs(3600), ..settings(&redis.url()) };
    following_in(&owned, &settings, |table| {
        let header = table.header();
        // 63 cells, 16 of them for changes.
        wait_for("full", || header.is_loaded() && header.live_tools() == 47 && header.rejected() == 53);
        assert_eq!((header.free_bytes(), header.reserve_bytes(), header.displaced()), (16 * 64, 16 * 64, 0));
        let is_in = |n: &usize| port_of(table, &format!("t{n}"), &mut Scratch::default()).is_some();
        for n in (0..100).filter(is_in).collect::<Vec<_>>() {
            command(&mut connection, &["DEL", &format!("prefix:t{n}")]);
        }
        wait_for("deferred keys are published", || header.live_tools() == 47 && header.rejected() == 6);
    });
}
