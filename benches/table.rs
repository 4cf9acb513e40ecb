//! Benchmark of the table alone: cold random lookups, and a full load from a local Redis. Run by `make bench`.
//!
//! Lookup times are medians of several passes over all names in random order. Not a test: nothing here fails.

#[path = "common/child.rs"]
mod child;
#[path = "common/report.rs"]
mod report;
#[path = "common/store.rs"]
mod store;

use std::time::{Duration, Instant};

use report::row;
use store::Store;
use urlproxy::route::{Backend, Kind, LookupKey, Pattern, Route, RouteKey, normal_host};
use urlproxy::sync::{Journal, Settings, load_once};
use urlproxy::table::{Capacity, Lookup, OwnedTable, Scratch, Table, Writer};

/// Bytes of zone per tool. A domain has a longer name, so its record takes one more line.
const BYTES_PER_TOOL: usize = 192;

fn main() {
    row("what", "figure", "target");
    for (tools, target) in [(20_000, "<= 36 ns"), (1_000_000, "<= 200 ns")] {
        let owned = filled(tools, BYTES_PER_TOOL, |number| record(Kind::Tool, &tool(number)));
        let nanoseconds = random_lookups(owned.table(), tools, tool, |table, name, scratch| {
            matches!(table.lookup(name, scratch), Lookup::Found(_))
        });
        row(&format!("random lookup, {tools} tools"), &format!("{nanoseconds:.0} ns"), target);
    }
    let domains = 100_000;
    for (what, mapped) in [("", "host"), (", by its wildcard", "*")] {
        let owned = filled(domains, 2 * BYTES_PER_TOOL, |number| record(Kind::Domain, &host(mapped, number)));
        let nanoseconds = random_lookups(owned.table(), domains, |number| host("host", number), find_host);
        let what = format!("random lookup of a host, {domains} domains{what}");
        row(&what, &format!("{nanoseconds:.0} ns"), "<= 300 ns");
    }
    if let Some((seconds, bytes)) = full_load(1_000_000) {
        row("full load of 1000000 tools from a local Redis", &format!("{seconds:.1} s"), "<= 1.5 s");
        row("memory per tool", &format!("{bytes:.0} bytes"), "<= 144 bytes");
    }
}

fn tool(number: usize) -> String {
    format!("tool-{number}")
}

fn host(label: &str, number: usize) -> String {
    format!("{label}.project-{number}.example.org")
}

fn record(kind: Kind, name: &str) -> RouteKey {
    RouteKey::try_new(kind, name.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

/// Like the module: looks up the host, then its wildcard.
fn find_host(table: Table<'_>, host: &[u8], scratch: &mut Scratch) -> bool {
    let mut is_there = |key: LookupKey| matches!(table.lookup(key, scratch), Lookup::Found(_));
    let Some(host) = normal_host(host) else { return false };
    is_there(LookupKey::domain(&host)) || LookupKey::wildcard(&host).is_some_and(is_there)
}

/// The capacity of a zone just large enough for `count` records of `bytes` bytes each.
fn capacity(count: usize, bytes: usize) -> Capacity {
    Capacity::of_bytes(count * bytes + (4 << 20)).unwrap_or_else(|e| panic!("{e}"))
}

fn filled(count: usize, bytes: usize, key: impl Fn(usize) -> RouteKey) -> OwnedTable {
    let owned = OwnedTable::new(capacity(count, bytes));
    let mut writer = Writer::attach(owned.table()).0;
    for number in 0..count {
        let url = format!("http://10.{}.{}.1:{}", number >> 16, number >> 8 & 255, 1024 + number % 60_000);
        let backend: Backend = url.parse().unwrap_or_else(|e| panic!("{e}"));
        let routes = [Route { pattern: Pattern::any(), backends: vec![backend] }];
        writer.publish(&key(number), &routes).unwrap_or_else(|e| panic!("{e}"));
    }
    drop(writer);
    owned
}

/// Median of nanoseconds per lookup.
fn random_lookups(
    table: Table<'_>,
    count: usize,
    name: impl Fn(usize) -> String,
    find: impl Fn(Table<'_>, &[u8], &mut Scratch) -> bool,
) -> f64 {
    let mut random = fastrand::Rng::with_seed(1);
    let names: Vec<Vec<u8>> = (0..500_000).map(|_| name(random.usize(..count)).into_bytes()).collect();
    let mut scratch = Scratch::default();
    let mut passes: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            let found = names.iter().filter(|name| find(table, name, &mut scratch)).count();
            assert_eq!(found, names.len());
            start.elapsed().as_nanos() as f64 / names.len() as f64
        })
        .collect();
    passes.sort_by(f64::total_cmp);
    passes[passes.len() / 2]
}

/// Seconds and bytes per tool; `None` without redis-server.
fn full_load(tools: usize) -> Option<(f64, f64)> {
    let store = Store::filled(tools)?;
    let owned = OwnedTable::new(capacity(tools, BYTES_PER_TOOL));
    let settings = Settings::new(store.url().parse().ok()?);
    let (journal, _reader) = Journal::new(16);
    let start = Instant::now();
    let loaded = load_once(owned.table(), &settings, start + Duration::from_secs(60), &journal);
    let seconds = start.elapsed().as_secs_f64();
    let table = owned.table();
    assert!(loaded && table.header().live_tools() == tools as u64, "loaded {}", table.header().live_tools());
    // Records, and per tool a counter line and its share of the index.
    let index = table.capacity().buckets * 64;
    let bytes = (table.header().live_bytes() as f64 + index as f64) / tools as f64 + 64.0;
    Some((seconds, bytes))
}
