//! Tests of the table's state: counts, ages, holds, statistics of workers.

use super::*;
use crate::table::slot::Slot;

#[test]
fn age_counts_from_the_last_time_in_step() {
    let owned = OwnedTable::new(SMALL);
    let header = owned.table().header();
    assert_eq!((header.age_seconds(1000), header.is_loaded()), (None, false), "never loaded");
    let (mut writer, _) = Writer::attach(owned.table());
    writer.mark_restored(400, &[Kind::Tool]);
    assert_eq!(header.age_seconds(1000), Some(600), "a snapshot's");
    writer.mark_synced(1000, 0, &[Kind::Tool]);
    writer.note_in_step(1060);
    // After the clock was set back the next ping corrects the age; without one the table counts as old.
    for (now, age) in [(1060, 0), (1061, 0), (1062, 2), (1160, 100), (1059, 0), (900, 160)] {
        assert_eq!(header.age_seconds(now), Some(age), "{now}");
    }
    writer.note_in_step(900);
    assert_eq!(header.age_seconds(900), Some(0));
    assert_eq!(header.synced_at(), 1000, "the time of the last scan is unchanged");
    writer.note_rejected(7);
    assert_eq!(header.rejected(), 7);
}

#[test]
fn every_change_is_counted() {
    let owned = OwnedTable::new(SMALL);
    let (mut writer, _) = Writer::attach(owned.table());
    let changes = || owned.table().header().changes();
    writer.publish(&tool("a"), &routes(1)).unwrap();
    assert_eq!(changes(), 1);
    writer.publish(&tool("a"), &routes(1)).unwrap();
    assert_eq!(changes(), 1, "unchanged");
    writer.publish(&tool("a"), &routes(2)).unwrap();
    writer.withdraw(b"a");
    assert_eq!(changes(), 3);
}

#[test]
fn sums_in_damaged_memory_go_on() {
    let owned = OwnedTable::new(SMALL);
    let header = owned.table().header();
    header.last_stamp.store(u64::MAX - 1, Relaxed);
    header.changes.store(u64::MAX - 1, Relaxed);
    let (mut writer, _) = Writer::attach(owned.table());
    for (number, stamp) in (1..).zip([u64::MAX, 1, 2]) {
        writer.publish(&tool("a"), &routes(number)).unwrap();
        assert_eq!((header.last_stamp.load(Relaxed), port_of(owned.table(), "a")), (stamp, Some(number + 1)));
    }
    assert_eq!(header.changes(), 1);
}

#[test]
fn sums_of_counters_in_damaged_memory_go_on() {
    let owned = OwnedTable::new(Capacity { workers: 2, ..SMALL });
    let [first, second] = owned.table().workers else { unreachable!("two workers") };
    first.add_connections(u64::MAX, u64::MAX, u64::MAX);
    second.add_connections(2, 3, 4);
    for worker in [first, second] {
        worker.set_idle(u64::MAX);
        worker.add_other(StatusClass::Success, u64::MAX);
    }
    let tally = owned.table().worker_tally();
    assert_eq!((tally.idle, tally.reused, tally.opened, tally.evicted), (u64::MAX - 1, 1, 2, 3));
    assert_eq!((tally.others.milliseconds, tally.others.by_class), (u64::MAX - 1, [0, 2, 0, 0, 0]));
    let classes = Tally { by_class: [u64::MAX, 3, 0, 0, 0], ..Tally::default() };
    assert_eq!(classes.requests(), 2);
}

#[test]
fn kinds_are_counted_separately_and_carried_over() {
    let (old, new) = (OwnedTable::new(SMALL), OwnedTable::new(SMALL));
    let key = |kind, name: &str| RouteKey::try_new(kind, name.as_bytes()).unwrap();
    let (mut writer, _) = Writer::attach(old.table());
    for name in ["a", "b"] {
        writer.publish(&key(Kind::Tool, name), &routes(1)).unwrap();
    }
    writer.publish(&key(Kind::Tool, "b"), &[long_routes(1, 1), long_routes(2, 1)].concat()).unwrap();
    writer.publish(&key(Kind::Redirect, "a"), &[]).unwrap();
    writer.publish(&key(Kind::Domain, "a"), &routes(2)).unwrap();
    writer.publish(&key(Kind::Domain, "*.a.org"), &routes(3)).unwrap();
    writer.publish(&key(Kind::Domain, "b.org"), &routes(4)).unwrap();
    assert!(writer.withdraw(key(Kind::Domain, "b.org").as_bytes()));
    assert_eq!(carry_over(old.table(), new.table()), Ok(2));
    for table in [old.table(), new.table()] {
        assert_eq!(Kind::ALL.map(|kind| table.header().live(kind)), [2, 1, 2]);
        assert_eq!(
            (port_of(table, "a"), port_of(table, "/da"), port_of(table, "/d*.a.org")),
            (Some(2), Some(3), Some(4))
        );
        assert_eq!(port_of(table, "/db.org"), None);
        let mut scratch = Scratch::default();
        assert!(
            matches!(table.lookup(&b"/ra"[..], &mut scratch), Lookup::Found(record) if record.routes().next().is_none())
        );
        assert_eq!(table.header().live_routes(), 7);
        // A new writer counts the same.
        assert_eq!(Writer::attach(table).1.tools, 2);
        assert_eq!((Kind::ALL.map(|kind| table.header().live(kind)), table.header().live_routes()), ([2, 1, 2], 7));
    }
}

#[test]
fn a_hold_exists_while_records_are_held() {
    let owned = OwnedTable::new(SMALL);
    let header = owned.table().header();
    let (mut writer, _) = Writer::attach(owned.table());
    let hold = || (header.held(), header.held_first(), header.held_since());
    writer.note_held(3, None);
    assert_eq!(hold(), (3, None, None));
    writer.note_held(3, Some(66));
    assert_eq!(hold(), (3, Some(66), Some(66)));
    writer.note_held(2, Some(77));
    assert_eq!(hold(), (2, Some(66), Some(77)));
    writer.note_held(0, None);
    assert_eq!(hold(), (0, None, None));
    // A writer was killed before it stored the number of records.
    header.held_first.store(66, Relaxed);
    header.held_since.store(77, Relaxed);
    assert_eq!(hold(), (0, None, None));
}

#[test]
fn a_lookup_gives_up_on_a_record_that_keeps_changing_and_is_counted() {
    let owned = OwnedTable::new(SMALL);
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    writer.publish(&tool("a"), &routes(1)).unwrap();
    writer.publish(&tool("b"), &routes(2)).unwrap();
    let words: Vec<_> = table.buckets.iter().flat_map(|bucket| &bucket.slots).collect();
    let slot = words.iter().find(|word| Slot(word.load(Relaxed)).has_tag(table.hash(b"a"))).unwrap();
    // The stamp of another record: so the slot looks to a reader while the record is rewritten.
    let word = slot.fetch_xor(1, Relaxed);
    for contended in 1..3 {
        assert!(matches!(table.lookup(&b"a"[..], &mut Scratch::default()), Lookup::Contended));
        assert_eq!(table.header().contended(), contended);
    }
    assert_eq!(port_of(table, "b"), Some(3));
    slot.store(word, Relaxed);
    assert_eq!((port_of(table, "a"), table.header().contended()), (Some(2), 2));
}

#[test]
fn requests_of_all_workers_add_up_by_result_and_class() {
    let owned = OwnedTable::new(Capacity { workers: 2, ..Capacity::NONE });
    for (worker, result, class) in [
        (0, RequestResult::Route, StatusClass::Success),
        (1, RequestResult::Route, StatusClass::Success),
        (1, RequestResult::Unready, StatusClass::ServerError),
    ] {
        owned.table().worker(worker).unwrap().add(result, class);
    }
    let none = [0; 5];
    assert_eq!(owned.table().worker_tally().by_result, [[0, 2, 0, 0, 0], none, none, none, [0, 0, 0, 0, 1]]);
}

#[test]
fn idle_connections_of_workers_that_are_gone_do_not_count() {
    let owned = OwnedTable::new(Capacity { workers: 4, ..Capacity::NONE });
    let table = owned.table();
    for (number, idle) in [(0, 1), (1, 20), (2, 300), (3, 4000)] {
        let worker = table.worker(number).unwrap();
        worker.set_idle(idle);
        worker.add_connections(1, 0, 2);
        worker.add_connections(10, 100, 0);
    }
    let tally = |table: Table<'_>| {
        let tally = table.worker_tally();
        (tally.idle, tally.reused, tally.opened, tally.evicted)
    };
    assert_eq!(tally(table), (4321, 44, 400, 8));
    // Fewer workers after a reload.
    table.forget_workers_from(2);
    assert_eq!(tally(table), (21, 44, 400, 8));
}
