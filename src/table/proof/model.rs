//! Shared by the models: records that reveal tearing, checked lookups, the search and its negative controls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64 as Count, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use crate::route::{Kind, Pattern, Route, RouteKey};
use crate::table::atomic::Part;
use crate::table::atomic::faulty::{leave_out, mend};
use crate::table::{Capacity, Lookup, OwnedTable, Record, Scratch, Table, Writer, record};

/// The record of version 9 takes two cells; all others take one.
pub const LONG: u8 = 9;
/// Tools with the first of two buckets as home, so that the third of them overflows.
pub const A: &str = "a";
pub const C: &str = "c";
pub const D: &str = "d";
pub const E: &str = "e";
/// Loom's own limit of steps is too low for a lookup that starts over sixteen times.
const MAX_STEPS: usize = 20_000;

/// Version n has the digit n, n times, as its pattern: pattern, its length and the record's length are in different words.
static ROUTES: LazyLock<Vec<Vec<Route>>> = LazyLock::new(|| {
    let text =
        |version: u8| char::from(b'0' + version).to_string().repeat(if version == LONG { 71 } else { version.into() });
    let route = |version| Route { pattern: Pattern::try_new(&text(version)).unwrap(), backends: Vec::new() };
    (0..=LONG).map(|version| vec![route(version)]).collect()
});

fn tool(name: &str) -> RouteKey {
    RouteKey::try_new(Kind::Tool, name.as_bytes()).unwrap()
}

pub fn table(buckets: usize, cells: usize) -> Arc<OwnedTable> {
    mend();
    let owned = Arc::new(OwnedTable::new(Capacity { buckets, cells, tools: 4, health: 0, ..Capacity::NONE }));
    let table = owned.table();
    assert!([A, C, D, E].iter().all(|name| table.home(table.hash(name.as_bytes())) == 0), "choose other names");
    owned
}

pub fn put(writer: &mut Writer<'_>, name: &str, version: u8) {
    writer.publish(&tool(name), &ROUTES[usize::from(version)]).unwrap();
}

/// The version of a record, which must equal a record that a writer encodes.
fn version(name: &str, record: Record<'_>) -> u8 {
    let version = record.routes().next().and_then(|r| Some(r.pattern.first()?.wrapping_sub(b'0'))).unwrap_or(0);
    let mut whole = Vec::new();
    if let Some(routes) = ROUTES.get(usize::from(version)) {
        record::encode(&tool(name), routes, &[], &mut whole);
    }
    assert_eq!(record.bytes(), whole, "torn");
    version
}

/// A lookup; 0 for absent, `None` for contended.
pub fn try_look(table: Table<'_>, name: &str) -> Option<u8> {
    match table.lookup(name.as_bytes(), &mut Scratch::default()) {
        Lookup::Found(record) => Some(version(name, record)),
        Lookup::Absent => Some(0),
        Lookup::Contended => None,
    }
}

/// A lookup that must not be contended; 0 for absent.
pub fn look(table: Table<'_>, name: &str) -> u8 {
    try_look(table, name).expect("contended")
}

/// The version of a tool in `for_each`; 0 for absent.
pub fn listed(table: Table<'_>, name: &str) -> u8 {
    let mut found = 0;
    table.for_each(&mut Scratch::default(), |record| {
        if record.key() == name.as_bytes() {
            found = version(name, record);
        }
    });
    found
}

pub fn reader(owned: &Arc<OwnedTable>, read: impl FnOnce(Table<'_>) + 'static) -> loom::thread::JoinHandle<()> {
    let owned = Arc::clone(owned);
    loom::thread::spawn(move || read(owned.table()))
}

/// The preemptions that a negative control may use beyond `LOOM_MAX_PREEMPTIONS`: that of E8 needs a third.
const CONTROL_PREEMPTIONS: usize = 1;

/// Runs all executions of a model without a part of the protocol, within `LOOM_MAX_PREEMPTIONS` or `bound` preemptions.
fn search(part: Option<Part>, bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) -> Result<u64, String> {
    let count = Arc::new(Count::new(0));
    let counted = Arc::clone(&count);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = MAX_STEPS;
    let more = if part.is_some() { CONTROL_PREEMPTIONS } else { 0 };
    builder.preemption_bound = builder.preemption_bound.map(|preemptions| preemptions + more).or(bound);
    leave_out(part);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            counted.fetch_add(1, Relaxed);
            model();
        });
    }));
    leave_out(None);
    match outcome {
        Ok(()) => Ok(count.load(Relaxed)),
        Err(payload) => Err(payload.downcast_ref::<String>().cloned().unwrap_or_else(|| {
            payload.downcast_ref::<&str>().copied().unwrap_or("a panic without a message").to_owned()
        })),
    }
}

/// Checks that a model holds in every execution.
pub fn holds(name: &str, model: impl Fn() + Send + Sync + 'static) {
    holds_within(None, name, model);
}

/// Checks that a model holds in every execution with at most `bound` preemptions.
pub fn holds_within(bound: Option<usize>, name: &str, model: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let executions = search(None, bound, model).unwrap_or_else(|error| panic!("{name}: {error}"));
    println!("{name}: holds in {executions} executions, {:.1?}", start.elapsed());
}

/// Negative control: checks that the model fails without the part, and with this message.
pub fn fails(name: &str, part: Option<Part>, how: &str, model: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let left_out = part.map_or_else(String::new, |part| format!(" without {part:?}"));
    match search(part, None, model) {
        Ok(executions) => panic!("{name}{left_out}: holds in all {executions} executions, expected: {how}"),
        Err(error) => {
            assert!(error.contains(how), "{name}{left_out}: {error}, expected: {how}");
            println!("{name}{left_out}: {how}, {:.1?}", start.elapsed());
        }
    }
}
