//! The table by itself: cold random lookups, and a full load from a local Redis. Run by `make bench`.
//!
//! Lookup times are medians of several passes over every tool in random order. Not a test: nothing here fails.

#[path = "common/store.rs"]
mod store;

use std::time::{Duration, Instant};

use store::Store;
use urlproxy::route::{Backend, Kind, Pattern, Route, RouteKey};
use urlproxy::sync::{Journal, Settings, load_once};
use urlproxy::table::{Capacity, Lookup, OwnedTable, Scratch, Table, Writer};

fn main() {
    row("what", "figure", "target");
    for (tools, target) in [(20_000, "<= 80 ns"), (1_000_000, "<= 300 ns")] {
        let owned = filled(tools);
        let nanoseconds = random_lookups(owned.table(), tools);
        row(&format!("random lookup, {tools} tools"), &format!("{nanoseconds:.0} ns"), target);
    }
    if let Some((seconds, bytes)) = full_load(1_000_000) {
        row("full load of 1000000 tools from a local Redis", &format!("{seconds:.1} s"), "<= 5 s");
        row("memory per tool", &format!("{bytes:.0} bytes"), "<= 192 bytes");
    }
}

fn row(what: &str, figure: &str, target: &str) {
    println!("{what:<62} | {figure:>10} | {target}");
}

fn name(number: usize) -> RouteKey {
    RouteKey::try_new(Kind::Tool, format!("tool-{number}").as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

/// Room for so many tools, as a zone that is just large enough gives it.
fn capacity(tools: usize) -> Capacity {
    Capacity::of_bytes(tools * 192 + (1 << 20)).unwrap_or_else(|e| panic!("{e}"))
}

fn filled(tools: usize) -> OwnedTable {
    let owned = OwnedTable::new(capacity(tools));
    let mut writer = Writer::attach(owned.table()).0;
    for number in 0..tools {
        let url = format!("http://10.{}.{}.1:{}", number >> 16, number >> 8 & 255, 1024 + number % 60_000);
        let backend: Backend = url.parse().unwrap_or_else(|e| panic!("{e}"));
        let routes = [Route { pattern: Pattern::any(), backends: vec![backend] }];
        writer.publish(&name(number), &routes).unwrap_or_else(|e| panic!("{e}"));
    }
    drop(writer);
    owned
}

/// Nanoseconds per lookup.
fn random_lookups(table: Table<'_>, tools: usize) -> f64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % tools
    };
    let names: Vec<Vec<u8>> = (0..500_000).map(|_| format!("tool-{}", random()).into_bytes()).collect();
    let mut scratch = Scratch::default();
    let mut passes: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            let found = names.iter().filter(|n| matches!(table.lookup(n, &mut scratch), Lookup::Found(_))).count();
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
    let owned = OwnedTable::new(capacity(tools));
    let settings = Settings::new(store.url().parse().ok()?);
    let (journal, _reader) = Journal::new(16);
    let start = Instant::now();
    let loaded = load_once(owned.table(), &settings, start + Duration::from_secs(60), &journal);
    let seconds = start.elapsed().as_secs_f64();
    let table = owned.table();
    assert!(loaded && table.header().live_tools() == tools as u64, "loaded {}", table.header().live_tools());
    // Records, and for each tool its line of counters and its share of the index.
    let index = table.capacity().buckets * 64;
    let bytes = (table.header().live_bytes() as f64 + index as f64) / tools as f64 + 64.0;
    Some((seconds, bytes))
}
