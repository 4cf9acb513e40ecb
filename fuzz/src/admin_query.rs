//! Query strings of the admin pages: any bytes give a page of valid JSON that ends, or an error that quotes a bounded text.

use urlproxy::admin::about::{About, Build};
use urlproxy::admin::answer::{Answer, ApiError};
use urlproxy::admin::page::{Page, Step};
use urlproxy::admin::query::Query;
use urlproxy::admin::readiness::ReadyLimits;
use urlproxy::admin::{changes, routes, tool, tools};
use urlproxy::route::{Kind, Pattern, Route, RouteKey};
use urlproxy::table::{Capacity, HealthSettings, OwnedTable, Scratch, Table, Writer};

const CAPACITY: Capacity =
    Capacity { buckets: 4, cells: 4200, tools: 64, health: 1, workers: 1, series: 1, notes: 4, questions: 1 };

thread_local! {
    static TABLE: &'static OwnedTable = Box::leak(Box::new(filled()));
}

fn filled() -> OwnedTable {
    let owned = OwnedTable::new(CAPACITY);
    let (mut writer, _) = Writer::attach(owned.table());
    for (kind, name) in
        [(Kind::Tool, "hello"), (Kind::Tool, "wîki\""), (Kind::Redirect, "hello"), (Kind::Domain, "a.org")]
    {
        let key = RouteKey::try_new(kind, name.as_bytes()).expect("a name");
        let backends = vec!["http://10.0.0.1:80".parse().expect("a URL")];
        let routes = vec![Route { pattern: Pattern::any(), backends }];
        writer.publish(&key, if kind == Kind::Redirect { &[] } else { &routes }).expect("the table has room");
    }
    writer.mark_synced(1, 0, &Kind::ALL);
    owned
}

fn about() -> About {
    About {
        table: "tools".into(),
        source: "redis://127.0.0.1:6379/0".into(),
        snapshot: None,
        guard: None,
        ready_limits: ReadyLimits::default(),
        health: HealthSettings::default(),
        build: Build { version: "0.1.0", id: "abc", nginx: "1.22.1" },
        now: 1_790_000_000_000,
        monotonic_seconds: 1000,
        health_seconds: 1000,
    }
}

pub fn check(bytes: &[u8]) {
    let table = TABLE.with(|table| table.table());
    let cursor = format!("{:08x}", table.pseudonym() as u32);
    let args = String::from_utf8_lossy(bytes).replace("HASH", &cursor);
    // Also as they come, which need not be UTF-8.
    for args in [args.as_bytes(), bytes] {
        read(&table, Query::parse(args, routes::PARAMETERS).and_then(|query| routes::routes("tools", &table, &query)));
        read(&table, Query::parse(args, tools::PARAMETERS).and_then(|query| tools::tools(about(), &table, &query)));
        read(
            &table,
            Query::parse(args, changes::PARAMETERS).and_then(|query| changes::changes(&about(), &table, &query)),
        );
        let name = args.split(|&byte| byte == b'&').next().unwrap_or_default();
        for name in [&b"hello"[..], name] {
            read(
                &table,
                Query::parse(args, tool::PARAMETERS).and_then(|query| tool::tool(&about(), &table, &query, name)),
            );
        }
    }
}

fn read(table: &Table<'_>, answer: Result<Answer, ApiError>) {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return assert!(error.to_string().len() < 1000, "{error}"),
    };
    let (mut scratch, mut body) = (Scratch::default(), Vec::new());
    for _ in 0..1000 {
        if answer.page.step(table, &mut scratch, &mut body) == Step::Done {
            let read: Result<serde_json::Value, _> = serde_json::from_slice(&body);
            return assert!(read.is_ok(), "{}", String::from_utf8_lossy(&body));
        }
    }
    panic!("the page does not end");
}
