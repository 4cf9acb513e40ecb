//! The companion's account of itself, against a real Redis: what operators see of it.

use std::time::Duration;

use urlproxy::sync::Settings;
use urlproxy::table::{Capacity, NAME_BYTES, OwnedTable, REASONS, Reply, Scratch, Table};

use crate::following::{CAPACITY, following_in, map, routes, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const WITH_STATISTICS: Capacity = Capacity { workers: 1, series: 8, notes: 201, questions: 2, ..CAPACITY };

fn observe(settings: &Settings, test: impl FnOnce(Table<'_>)) {
    following_in(&OwnedTable::new(WITH_STATISTICS), settings, test);
}

/// The latest changes: `change kind name routes backend`.
fn changes(table: Table<'_>) -> Vec<String> {
    let kept = (1..=table.source().read().changes).filter_map(|number| table.notes().change(number));
    kept.map(|change| {
        let name = String::from_utf8_lossy(&change.name).into_owned();
        let (what, kind) = (change.change.as_str(), change.kind.as_str());
        format!("{what} {kind} {name} {} {}", change.routes, change.backend)
    })
    .collect()
}

#[test]
fn changes_are_noted_and_the_first_load_is_not() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:old", ".*", "http://10.0.0.1:1"]);
    observe(&settings(&redis.url()), |table| {
        wait_for("the first load", || table.source().read().is_connected);
        assert_eq!(changes(table), Vec::<String>::new());
        redis.cli(&["HSET", "prefix:new", ".*", "http://10.0.0.1:2", "/x", "http://10.0.0.1:3"]);
        wait_for("a new tool", || changes(table) == ["added tool new 2 http://10.0.0.1:2"]);
        redis.cli(&["DEL", "prefix:old"]);
        redis.cli(&["SADD", "frontend:a.org", "http://10.0.0.1:4"]);
        wait_for("three changes", || changes(table).len() == 3);
        let want = ["removed tool old 0 ", "added domain a.org 1 http://10.0.0.1:4"];
        assert_eq!(changes(table)[1..], want);
        assert!(table.source().read().last_change.is_some());
        assert_eq!(table.header().live_routes(), 3);
    });
}

#[test]
fn connection_resyncs_and_propagation_are_counted() {
    let mut redis = RedisServer::start(&[]);
    let short = Settings { resync_interval: Duration::from_secs(1), ..settings(&redis.url()) };
    observe(&short, |table| {
        wait_for("a connection", || table.source().read().is_connected);
        assert_eq!((table.source().read().resyncs[0], table.notes().error()), (1, None));
        redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]);
        wait_for("propagation", || table.source().read().propagation.iter().sum::<u64>() == 1);
        assert!(table.source().read().last_push.is_some());
        wait_for("a resync by time", || table.source().read().resyncs[1] > 0);
        redis.cli(&["FLUSHALL"]);
        wait_for("a resync by flush", || table.source().read().resyncs[2] > 0);
        redis.stop();
        wait_for("the outage", || !table.source().read().is_connected);
        let outage = table.source().read();
        assert!(outage.failures > 0 && table.notes().error().is_some(), "{outage:?}");
        redis.start_again();
        wait_for("the connection again", || table.source().read().is_connected);
        wait_for("no error", || table.notes().error().is_none());
        assert!(table.source().read().since >= outage.since);
        assert!(table.source().read().resyncs[0] > 1);
    });
}

#[test]
fn rejected_routes_are_noted_and_forgotten() {
    let redis = RedisServer::start(&[]);
    observe(&settings(&redis.url()), |table| {
        wait_for("the first load", || table.source().read().is_connected);
        redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1", "(", "http://10.0.0.1:3"]);
        wait_for("a note", || table.notes().rejected().count() == 1);
        let note = table.notes().rejected().next().unwrap();
        assert_eq!(
            (note.name, note.pattern, REASONS[usize::from(note.reason)]),
            (b"a".into(), Some(b"(".into()), "pattern")
        );
        assert!(note.text.contains("unclosed group"), "{}", note.text);
        assert_eq!(table.source().read().rejected.iter().sum::<u64>(), 1);
        redis.cli(&["HDEL", "prefix:a", "("]);
        wait_for("no note", || table.notes().rejected().count() == 0);
        assert_eq!(table.source().read().rejected.iter().sum::<u64>(), 0);
    });
}

#[test]
fn origins_are_looked_up_when_a_worker_asks() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1", "/x", "http://10.0.0.1:2", "/y", "http://10.0.0.1:2"]);
    redis.cli(&[
        "HSET",
        "origin:a",
        ".*",
        r#"{"source":"proxylistener","owner":"p.a"}"#,
        "/x",
        "nonsense",
        "/gone",
        "{}",
    ]);
    // Above the largest value that the connection accepts.
    redis.cli(&["SETRANGE", "large", "2000000", "x"]);
    redis.cli(&["EVAL", "redis.call('HSET', 'origin:c', '.*', redis.call('GET', 'large'), '/x', '{}')", "0"]);
    redis.cli(&["HSET", "prefix:c", ".*", "http://10.0.0.1:1", "/x", "http://10.0.0.1:2"]);
    redis.cli(&["SET", "origin:b", "of another type"]);
    redis.cli(&["HSET", "prefix:b", ".*", "http://10.0.0.1:1"]);
    observe(&settings(&redis.url()), |table| {
        wait_for("the first load", || table.source().read().is_connected);
        for (name, want) in [
            ("a", r#"{".*":{"owner":"p.a","source":"proxylistener"}}"#),
            ("b", ""),
            ("c", r#"{"/x":{}}"#),
            ("none", ""),
            ("/", ""),
        ] {
            let ticket = table.questions().ask(name.as_bytes(), 1).unwrap();
            let mut reply = Reply::Pending;
            wait_for("an answer", || {
                reply = table.questions().reply(ticket);
                reply != Reply::Pending
            });
            assert_eq!(reply, Reply::Answered(want.into()), "{name}");
        }
        let want = [
            ("a .*", "http://10.0.0.1:1"),
            ("a /x", "http://10.0.0.1:2"),
            ("a /y", "http://10.0.0.1:2"),
            ("b .*", "http://10.0.0.1:1"),
            ("c .*", "http://10.0.0.1:1"),
            ("c /x", "http://10.0.0.1:2"),
        ];
        assert_eq!(routes(table), map(&want), "the connection is intact");
        assert_eq!(table.source().read().failures, 0);
    });
}

#[test]
fn busiest_tools_get_statistics() {
    let redis = RedisServer::start(&[]);
    let name = "n".repeat(NAME_BYTES + 1);
    redis.cli(&["HSET", &format!("prefix:{name}"), ".*", "http://10.0.0.1:1"]);
    observe(&Settings { metrics_tools: 1, ..settings(&redis.url()) }, |table| {
        wait_for("the first load", || table.source().read().is_connected);
        let mut scratch = Scratch::default();
        let mut count = || {
            use urlproxy::table::{Finished, Lookup, RequestResult, StatusClass};
            let Lookup::Found(record) = table.lookup(name.as_bytes(), &mut scratch) else { panic!("no record") };
            let line = table.counters(record.counters()).unwrap();
            let (result, class) = (RequestResult::Route, StatusClass::Success);
            let finished = Finished { result, class, bytes: 1, milliseconds: 1 };
            table.count_request(0, &finished, Some((line, line.ticket())));
        };
        wait_for("statistics", || {
            count();
            table.series().next().is_some_and(|series| series.requests.by_class[1] > 0)
        });
        let series = table.series().next().unwrap();
        assert!(series.is_truncated && series.name() == &name.as_bytes()[..NAME_BYTES]);
    });
}
