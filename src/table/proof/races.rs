//! One writer and one reader: each edge, and the failure without it.

use super::model::{A, C, D, E, LONG, fails, holds, listed, look, put, reader, table, try_look};
use crate::table::Writer;
use crate::table::atomic::faulty::{delay, skip};
use crate::table::atomic::{
    Edge::{E1, E2, E3, E4, E5, E6},
    Ordering::Relaxed,
    Part::{Acquire, FenceAcquire, FenceRelease, Release, SlotRecheck, StampRecheck},
};
use crate::table::slot::Slot;

/// A tool appears.
fn insert() {
    let owned = table(1, 3);
    let (mut writer, _) = Writer::attach(owned.table());
    let read = reader(&owned, |t| {
        let (first, then) = (look(t, A), look(t, A));
        assert!(first <= then, "lost");
    });
    put(&mut writer, A, 1);
    read.join().unwrap();
}

#[test]
fn seeing_the_slot_implies_seeing_the_record() {
    holds("insert", insert);
    // The stamp still prevents a torn record, but the lookup gives up.
    fails("insert", Some(Release(E1)), "contended", insert);
    fails("insert", Some(Acquire(E1)), "contended", insert);
}

#[test]
fn the_slot_is_stored_last() {
    fails("insert, a word after the slot", None, "torn", || {
        let owned = table(1, 3);
        let t = owned.table();
        let (mut writer, _) = Writer::attach(t);
        let read = reader(&owned, |t| assert!(look(t, A) <= 3));
        // The end of the pattern; without an earlier word it would be another key's record.
        delay(&t.cells[1].0[4], &t.buckets[0].slots[0]);
        put(&mut writer, A, 3);
        read.join().unwrap();
    });
}

/// Cells are reused while a reader may still copy them.
fn reuse() {
    let owned = table(1, 3);
    let (mut writer, _) = Writer::attach(owned.table());
    put(&mut writer, A, 1);
    let read = reader(&owned, |t| assert!(look(t, A) != 0, "lost"));
    put(&mut writer, A, 2);
    put(&mut writer, A, 3);
    read.join().unwrap();
}

#[test]
fn copying_a_later_word_is_noticed() {
    holds("reuse", reuse);
    fails("reuse", Some(FenceRelease(E2)), "torn", reuse);
    fails("reuse", Some(FenceAcquire(E2)), "torn", reuse);
}

#[test]
fn a_lookup_starts_over_once_per_change() {
    fails("reuse", Some(Release(E6)), "contended", reuse);
    fails("reuse", Some(Acquire(E3)), "contended", reuse);
}

/// A cell becomes the inside of a longer record.
fn inside() {
    let owned = table(1, 4);
    let (mut writer, _) = Writer::attach(owned.table());
    put(&mut writer, C, 1);
    put(&mut writer, A, 3);
    writer.withdraw(C.as_bytes());
    assert_eq!(Slot(owned.table().buckets[0].slots[1].load(Relaxed)).cell(), 2, "between two free cells");
    let read = reader(&owned, |t| assert!(look(t, A) <= 3, "torn"));
    writer.withdraw(A.as_bytes());
    put(&mut writer, C, LONG);
    read.join().unwrap();
}

#[test]
fn copying_the_inside_of_a_later_record_is_noticed() {
    holds("inside", inside);
    fails("inside", Some(SlotRecheck), "torn", inside);
    fails("inside", Some(FenceAcquire(E6)), "contended", inside);
}

/// The same tool returns to the same cell after 2^20 records, with the same word in its slot.
fn wrap(with_zeroed_stamp: bool) {
    let owned = table(1, 2);
    let t = owned.table();
    let (mut writer, _) = Writer::attach(t);
    put(&mut writer, A, 1);
    let word = t.buckets[0].slots[0].load(Relaxed);
    t.header.last_stamp.store(1 << 20, Relaxed);
    let (mut writer, _) = Writer::attach(t);
    // `reuse` covers contention.
    let read = reader(&owned, |t| assert!(try_look(t, A) <= Some(2)));
    writer.withdraw(A.as_bytes());
    if !with_zeroed_stamp {
        skip(&t.cells[1].0[0]);
    }
    put(&mut writer, A, 2);
    read.join().unwrap();
    assert_eq!(t.buckets[0].slots[0].load(Relaxed), word);
}

#[test]
fn seeing_a_stamp_implies_seeing_its_record() {
    holds("wrap", || wrap(true));
    fails("wrap", Some(Release(E3)), "torn", || wrap(true));
    fails("wrap", Some(Acquire(E3)), "torn", || wrap(true));
    fails("wrap", Some(StampRecheck), "torn", || wrap(true));
    fails("wrap, stamp not zeroed", None, "torn", || wrap(false));
}

/// A tool appears outside its full home bucket.
fn overflow(in_order: bool) {
    let owned = table(2, 5);
    let t = owned.table();
    let (mut writer, _) = Writer::attach(t);
    put(&mut writer, C, 1);
    put(&mut writer, D, 1);
    let read = reader(&owned, |t| {
        let (first, then) = (listed(t, A), look(t, A));
        assert!(first <= then, "lost");
    });
    if !in_order {
        delay(&t.buckets[0].overflow, &t.buckets[1].slots[0]);
    }
    put(&mut writer, A, 1);
    read.join().unwrap();
}

#[test]
fn the_path_opens_before_the_tool_appears() {
    holds("overflow", || overflow(true));
    fails("overflow, path after slot", None, "lost", || overflow(false));
}

/// A tool outside its home bucket is withdrawn.
fn withdraw(in_order: bool) {
    let owned = table(2, 5);
    let t = owned.table();
    let (mut writer, _) = Writer::attach(t);
    [C, D, A].iter().for_each(|name| put(&mut writer, name, 1));
    let read = reader(&owned, |t| {
        let (first, then) = (look(t, A), listed(t, A));
        assert!(first >= then, "came back");
    });
    if !in_order {
        delay(&t.buckets[1].slots[0], &t.buckets[0].overflow);
    }
    assert!(writer.withdraw(A.as_bytes()));
    read.join().unwrap();
    assert_eq!(t.buckets[0].overflow.load(Relaxed), 0);
}

#[test]
fn the_path_closes_after_the_tool_is_gone() {
    holds("withdraw", || withdraw(true));
    fails("withdraw", Some(Release(E4)), "came back", || withdraw(true));
    fails("withdraw", Some(FenceAcquire(E2)), "came back", || withdraw(true));
    fails("withdraw, path before slot", None, "came back", || withdraw(false));
}

/// A tool outside its home bucket stays, while another is inserted and withdrawn.
fn neighbor(is_counted: bool) {
    let owned = table(2, 6);
    let t = owned.table();
    let (mut writer, _) = Writer::attach(t);
    [C, D, A].iter().for_each(|name| put(&mut writer, name, 1));
    let read = reader(&owned, |t| assert_eq!(look(t, A), 1, "lost"));
    if !is_counted {
        skip(&t.buckets[0].overflow);
    }
    put(&mut writer, E, 1);
    assert!(writer.withdraw(E.as_bytes()));
    read.join().unwrap();
}

#[test]
fn the_path_stays_open_for_remaining_tools() {
    holds("neighbor", || neighbor(true));
    fails("neighbor, not counted", None, "lost", || neighbor(false));
}

/// A table is filled, then marked as loaded.
fn load() {
    let owned = table(1, 3);
    let (mut writer, _) = Writer::attach(owned.table());
    let read = reader(&owned, |t| assert!(!t.header().is_loaded() || look(t, A) == 1, "lost"));
    put(&mut writer, A, 1);
    writer.mark_synced(1, 0, &crate::route::Kind::ALL);
    read.join().unwrap();
}

#[test]
fn seeing_a_loaded_table_implies_seeing_its_tools() {
    holds("load", load);
    fails("load", Some(Release(E5)), "lost", load);
    fails("load", Some(Acquire(E5)), "lost", load);
}
