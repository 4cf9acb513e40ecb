//! A table in damaged memory: attaching to it, reading all of it and writing to it end, and read nothing outside of it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use urlproxy::route::{Backend, Kind, Pattern, Route, RouteKey};
use urlproxy::table::{Lookup, Scratch, Table, Writer};

const BYTES: usize = 32 << 10;
const NAMES: [&str; 3] = ["a", "hello", "tool-with-a-longer-name"];

#[repr(align(64))]
struct Zone([AtomicU64; BYTES / 8]);

thread_local! {
    static ZONE: &'static Zone = Box::leak(Box::new(Zone(std::array::from_fn(|_| AtomicU64::new(0)))));
}

/// Each ten bytes are a word's place and its new value.
pub fn check(bytes: &[u8]) {
    let zone = ZONE.with(|zone| *zone);
    zone.0.iter().for_each(|word| word.store(0, Relaxed));
    let memory = zone.0.as_ptr().cast::<u8>().cast_mut();
    // SAFETY: the zone is aligned, zero, never freed, and all of its words are atomic.
    let table = unsafe { Table::format(memory, BYTES, [1, 2]) }.expect("32 KiB are enough");
    publish(table);
    let (changes, _) = bytes.as_chunks::<10>();
    for [low, high, value @ ..] in changes {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % zone.0.len();
        zone.0[at].store(u64::from_le_bytes(*value), Relaxed);
    }
    // SAFETY: as above; the words need not be a table's.
    let Ok(table) = (unsafe { Table::attach(memory, BYTES) }) else { return };
    read(table);
    publish(table);
    read(table);
}

fn publish(table: Table<'static>) {
    let (mut writer, _) = Writer::attach(table);
    let backends: Vec<Backend> =
        ["http://10.0.0.1:80", "https://host.example:443"].map(|url| url.parse().expect("a URL")).into();
    let route = |text: &str, backends: &[Backend]| Route {
        pattern: Pattern::try_new(text).expect("a pattern"),
        backends: backends.into(),
    };
    for name in NAMES {
        let key = RouteKey::try_new(Kind::Tool, name.as_bytes()).expect("a name");
        let routes = [route("/api", &backends), route(".*", &backends[..1])];
        let _ = writer.publish(&key, if name == "a" { &routes[1..] } else { &routes });
    }
    writer.begin_sweep();
    let _ = writer.confirm(b"a");
    let _ = writer.unseen();
    writer.withdraw(b"hello");
    writer.mark_synced(1, 0, &Kind::ALL);
}

fn read(table: Table<'static>) {
    let mut scratch = Scratch::default();
    let mut records = 0;
    table.for_each(&mut scratch, |record| {
        records += 1;
        let _ = (record.routes().count(), record.select(b"/api/x").is_some());
    });
    assert!(records <= table.slots());
    for name in NAMES {
        if let Lookup::Found(record) = table.lookup(name.as_bytes(), &mut scratch) {
            assert_eq!(record.key(), name.as_bytes());
            let _ = table.counters(record.counters()).map(|line| (line.tally(), line.ticket()));
            let _ = table.is_current(record.version());
        }
    }
    let _ = (table.worker_tally(), table.series().count(), table.source().read());
    let notes = table.notes();
    let _ = (notes.error(), notes.rejected().count(), notes.change(table.source().read().changes));
    let _ = table.questions().open().count();
    let header = table.header();
    let _ = (header.known(), header.loaded_from(), header.free_bytes(), header.held_first(), header.age_seconds(1));
}
