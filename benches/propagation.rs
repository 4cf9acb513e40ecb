//! Benchmark of propagation, from a write to Redis until every worker routes by it. Run by `make bench`.
//!
//! The companion follows a Redis with 100,000 tools, then one with 100,000 domains, with snapshot and resyncs as in nginx, while
//! they change at a constant rate. Each change is timed from before it is sent until a lookup finds it, which is then true for
//! all workers, as they share the memory. Not a test: nothing here fails.

#[path = "common/child.rs"]
mod child;
#[path = "common/report.rs"]
mod report;
#[path = "common/store.rs"]
mod store;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use report::row;
use store::Store;
use urlproxy::registry::key_of;
use urlproxy::route::{Kind, RouteKey};
use urlproxy::sync::{Journal, Settings, SnapshotSettings, WriterLock, run};
use urlproxy::table::{Capacity, Lookup, OwnedTable, Scratch, Table};

const COUNT: usize = 100_000;
const CHANGES: usize = 1_500;
const PER_SECOND: u32 = 50;

fn main() {
    for kind in [Kind::Tool, Kind::Domain] {
        measure(kind);
    }
}

fn measure(kind: Kind) {
    let Some(mut store) = Store::filled(if kind == Kind::Tool { COUNT } else { 0 }) else { return };
    if kind == Kind::Domain {
        store.map(COUNT).unwrap_or_else(|| panic!("Redis did not accept the domains"));
    }
    let owned = OwnedTable::new(Capacity::of_bytes(COUNT * 192 + (1 << 20)).unwrap_or_else(|e| panic!("{e}")));
    let table = owned.table();
    let source = store.url().parse().unwrap_or_else(|e| panic!("{e}"));
    let snapshot = SnapshotSettings {
        path: store.directory().join("tools.snapshot"),
        max_age: Duration::from_secs(3600),
        owners: vec![],
    };
    let settings =
        Settings { snapshot: Some(snapshot), resync_interval: Duration::from_secs(10), ..Settings::new(source) };
    let lock = WriterLock::create("bench").unwrap_or_else(|e| panic!("{e}"));
    let (journal, _reader) = Journal::new(1000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| run(table, &settings, &lock, &journal, &|| stop.load(Relaxed)));
        while !table.header().is_loaded() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut delays = change_steadily(kind, table, &mut store);
        stop.store(true, Relaxed);
        delays.sort_unstable();
        for (percent, target) in [(50, ""), (99, "<= 1 ms")] {
            let at = (delays.len() * percent / 100).min(delays.len() - 1);
            let what = format!("a change routed, p{percent} of {CHANGES} at {PER_SECOND}/s, {COUNT} {}", kind.plural());
            row(&what, &format!("{:.2} ms", delays[at].as_secs_f64() * 1e3), target);
        }
    });
}

/// The delay of each change.
fn change_steadily(kind: Kind, table: Table<'_>, store: &mut Store) -> Vec<Duration> {
    let mut scratch = Scratch::default();
    let mut port_of = |key: &RouteKey| match table.lookup(key.as_bytes(), &mut scratch) {
        Lookup::Found(record) => record.routes().next().and_then(|r| r.first_backend()).map(|b| b.port),
        _ => None,
    };
    let begun = Instant::now();
    (0..CHANGES as u32)
        .map(|number| {
            let due = begun + Duration::from_secs(1) / PER_SECOND * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let at = number as usize * 7919 % COUNT;
            let name = if kind == Kind::Tool { format!("tool-{at}") } else { format!("host-{at}.example.org") };
            let key = RouteKey::try_new(kind, name.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
            // Below the tools' initial ports.
            let port = 1 + (number % 1000) as u16;
            let url = format!("http://10.9.9.9:{port}");
            let mut change = redis::pipe();
            if kind == Kind::Tool {
                change.hset(key_of(&key), ".*", url);
            } else {
                change.atomic().del(key_of(&key)).sadd(key_of(&key), url);
            }
            let start = Instant::now();
            change.exec(&mut store.connection).unwrap_or_else(|e| panic!("{e}"));
            while port_of(&key) != Some(port) {
                std::thread::yield_now();
            }
            start.elapsed()
        })
        .collect()
}
