//! A table for tests of pages, and their bodies.

use std::cell::RefCell;

use super::about::{About, Build};
use super::page::{CHUNK_BYTES, Page, Step};
use super::readiness::ReadyLimits;
use crate::route::{Kind, Pattern, Route, RouteKey, sort_routes};
use crate::table::{Capacity, HealthSettings, MAX_RECORD_BYTES, OwnedTable, Scratch, Table, Writer};

/// Notes of a table.
pub const NOTES: usize = 21;

/// A table named `tools` at `now`, in Unix milliseconds; the monotonic clocks show 1000 s.
pub fn about(now: u64) -> About {
    About {
        table: "tools".into(),
        source: "redis://127.0.0.1:6379/0".into(),
        snapshot: None,
        guard: None,
        ready_limits: ReadyLimits::default(),
        health: HealthSettings::default(),
        build: Build { version: "0.1.0", id: "abc", nginx: "1.22.1" },
        now,
        monotonic_seconds: 1000,
        health_seconds: 1000,
    }
}

/// A table that its test fills.
pub struct TestTable {
    writer: RefCell<Writer<'static>>,
    table: Table<'static>,
}

impl TestTable {
    /// An empty table for some tools.
    pub fn new(tools: usize) -> Self {
        let capacity = Capacity {
            buckets: tools / 4 + 4,
            cells: 40 * tools + 40_000,
            tools: tools + 64,
            health: 16,
            workers: 2,
            series: 8,
            notes: NOTES,
            questions: 1,
        };
        let owned: &'static OwnedTable = Box::leak(Box::new(OwnedTable::new(capacity)));
        let (writer, _) = Writer::attach(owned.table());
        Self { writer: RefCell::new(writer), table: owned.table() }
    }

    /// The table.
    pub fn table(&self) -> Table<'static> {
        self.table
    }

    /// Records a full scan.
    pub fn mark_synced(&self, unix_seconds: u64) {
        self.writer.borrow_mut().mark_synced(unix_seconds, 0, &Kind::ALL);
    }

    /// Records that a snapshot was restored.
    pub fn mark_restored(&self, unix_seconds: u64) {
        self.writer.borrow_mut().mark_restored(unix_seconds, &Kind::ALL);
    }

    /// Records a hold.
    pub fn note_held(&self, records: u64, since: Option<u64>) {
        self.writer.borrow_mut().note_held(records, since);
    }

    /// Publishes a record with these patterns and backends.
    pub fn publish(&self, kind: Kind, name: &str, routes: &[(&str, &[&str])]) {
        let mut routes: Vec<_> = routes
            .iter()
            .map(|(pattern, backends)| Route {
                pattern: Pattern::try_new(pattern).unwrap(),
                backends: backends.iter().map(|backend| backend.parse().unwrap()).collect(),
            })
            .collect();
        sort_routes(&mut routes);
        let key = RouteKey::try_new(kind, name.as_bytes()).unwrap();
        self.writer.borrow_mut().publish(&key, &routes).unwrap();
    }
}

/// The body of a page. Checks that each step stays within its limits.
pub fn body(table: &TestTable, mut page: impl Page) -> String {
    let (mut scratch, mut body, mut chunk) = (Scratch::default(), Vec::new(), Vec::new());
    let known_length = page.known_length();
    loop {
        let step = page.step(&table.table(), &mut scratch, &mut chunk);
        assert!(chunk.len() < CHUNK_BYTES + 8 * MAX_RECORD_BYTES, "{} bytes in one chunk", chunk.len());
        if chunk.len() >= CHUNK_BYTES || step == Step::Done {
            body.append(&mut chunk);
        }
        if step == Step::Done {
            break;
        }
    }
    assert!(known_length.is_none_or(|length| length == body.len()));
    String::from_utf8(body).unwrap()
}
