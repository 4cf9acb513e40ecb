//! A writer killed after each of its stores, its successor, and a reader beside both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::model::{A, C, D, fails, holds, holds_within, listed, look, put, reader, table};
use crate::table::atomic::Edge::E4;
use crate::table::atomic::Part::Release;
use crate::table::atomic::faulty::{killed_after, skip};
use crate::table::{Table, Writer};

/// The change during which the writer is killed.
#[derive(Clone, Copy, Debug)]
enum Change {
    Insert,
    Replace,
    Withdraw,
    InsertBeyondHome,
    ReplaceBeyondHome,
    WithdrawBeyondHome,
}
use Change::*;

impl Change {
    fn before(self) -> u8 {
        u8::from(!matches!(self, Insert | InsertBeyondHome))
    }

    fn after(self) -> u8 {
        if matches!(self, Withdraw | WithdrawBeyondHome) { 0 } else { 2 }
    }

    fn prepare(self, writer: &mut Writer<'_>) {
        if matches!(self, InsertBeyondHome | ReplaceBeyondHome | WithdrawBeyondHome) {
            put(writer, C, 1);
            put(writer, D, 1);
        }
        if self.before() == 1 {
            put(writer, A, 1);
        }
    }

    fn carry_out(self, writer: &mut Writer<'_>) {
        match self.after() {
            0 => assert!(writer.withdraw(A.as_bytes())),
            version => put(writer, A, version),
        }
    }
}

/// Whether a reader saw versions only in this order, each any number of times.
fn in_order(seen: &[u8], versions: &[u8]) -> bool {
    let mut at = 0;
    seen.iter().all(|v| match versions[at..].iter().position(|w| w == v) {
        Some(more) => {
            at += more;
            true
        }
        None => false,
    })
}

/// Kills the writer after `stores` stores; returns whether the kill came before the writer's end.
fn kill(change: Change, stores: usize, read: impl Fn(Table<'_>) -> Vec<u8> + Copy + 'static) -> bool {
    let beyond = !matches!(change, Insert | Replace | Withdraw);
    let owned = if beyond { table(2, 6) } else { table(1, 3) };
    let t = owned.table();
    let (mut writer, _) = Writer::attach(t);
    change.prepare(&mut writer);
    let (before, after) = (change.before(), change.after());
    let reading = reader(&owned, move |t| {
        let seen = read(t);
        assert!(in_order(&seen, &[before, after, 3]), "saw {seen:?}");
    });
    let was_killed = killed_after(stores, || change.carry_out(&mut writer)).is_none();
    drop(writer);
    let (mut writer, found) = Writer::attach(t);
    assert_eq!(found.damaged, 0);
    let now = look(t, A);
    assert!(now == before || now == after, "left {now}");
    assert_eq!(found.tools, u64::from(now > 0) + if beyond { 2 } else { 0 });
    put(&mut writer, A, 3);
    reading.join().unwrap();
    assert_eq!((look(t, A), listed(t, A)), (3, 3));
    was_killed
}

/// Most preemptions in models of two buckets, unless a lower limit is set: an unlimited search takes hours.
const BEYOND_HOME: Option<usize> = Some(5);

/// Checks a kill after each store of a change.
fn kills(change: Change, bound: Option<usize>, read: impl Fn(Table<'_>) -> Vec<u8> + Copy + Send + Sync + 'static) {
    for stores in 0.. {
        let was_killed = Arc::new(AtomicBool::new(false));
        let killed = Arc::clone(&was_killed);
        holds_within(bound, &format!("{change:?} killed after {stores} stores"), move || {
            killed.store(kill(change, stores, read), Relaxed);
        });
        if !was_killed.load(Relaxed) {
            break;
        }
    }
}

fn look_once(t: Table<'_>) -> Vec<u8> {
    vec![look(t, A)]
}

fn look_then_list(t: Table<'_>) -> Vec<u8> {
    vec![look(t, A), listed(t, A)]
}

#[test]
fn a_kill_leaves_the_old_or_the_new_record() {
    [Insert, Replace, Withdraw].into_iter().for_each(|change| kills(change, None, look_once));
}

#[test]
fn a_kill_leaves_the_old_or_the_new_record_beyond_its_home() {
    let changes = [InsertBeyondHome, ReplaceBeyondHome, WithdrawBeyondHome];
    changes.into_iter().for_each(|change| kills(change, BEYOND_HOME, look_once));
}

/// The writer is killed after the store that clears the slot.
const EMPTIED: usize = 1;

#[test]
fn the_successor_closes_the_path_after_the_tool_is_gone() {
    let model = || assert!(kill(WithdrawBeyondHome, EMPTIED, look_then_list));
    holds_within(BEYOND_HOME, "successor closes the path", model);
    fails("successor closes the path", Some(Release(E4)), "saw [0, 1]", model);
}

/// The writer is killed after publishing a record; its successor withdraws that and writes another into the same cell.
fn stamps(are_reserved: bool) {
    let owned = table(1, 2);
    let t = owned.table();
    let (mut writer, _) = Writer::attach(t);
    let reading = reader(&owned, |t| assert!(look(t, A) <= 2));
    if !are_reserved {
        skip(&t.header.last_stamp);
    }
    put(&mut writer, A, 1);
    drop(writer);
    let (mut writer, _) = Writer::attach(t);
    writer.withdraw(A.as_bytes());
    put(&mut writer, A, 2);
    reading.join().unwrap();
}

#[test]
fn stamps_are_reserved_before_use() {
    holds("stamps", || stamps(true));
    fails("stamps, not reserved", None, "torn", || stamps(false));
}
