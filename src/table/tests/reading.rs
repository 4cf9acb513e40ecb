//! Tests of lookups and of visits of the whole table.

use super::*;
use crate::table::slot::Slot;

#[test]
fn a_version_is_current_until_its_record_changes() {
    let owned = OwnedTable::new(SMALL);
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    let version = || match table.lookup(&b"a"[..], &mut Scratch::default()) {
        Lookup::Found(record) => record.version(),
        other => panic!("{other:?}"),
    };
    writer.publish(&tool("a"), &routes(1)).unwrap();
    let first = version();
    writer.publish(&tool("a"), &routes(1)).unwrap();
    writer.publish(&tool("b"), &routes(1)).unwrap();
    assert!(table.is_current(first), "unchanged");
    writer.publish(&tool("a"), &routes(2)).unwrap();
    let second = version();
    assert!(!table.is_current(first) && table.is_current(second));
    writer.withdraw(b"a");
    assert!(!table.is_current(second));
}

#[test]
fn a_version_is_not_current_for_another_record_in_the_same_cell() {
    let owned = OwnedTable::new(Capacity { buckets: 1, cells: 3, tools: 1, ..Capacity::NONE });
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    let mut versions = Vec::new();
    for version in 0..6 {
        writer.publish(&tool("a"), &routes(version)).unwrap();
        match table.lookup(&b"a"[..], &mut Scratch::default()) {
            Lookup::Found(record) => versions.push(record.version()),
            other => panic!("{other:?}"),
        }
        let current: Vec<_> = versions.iter().map(|&version| table.is_current(version)).collect();
        assert_eq!(current.iter().position(|is| *is), Some(versions.len() - 1), "{current:?}");
    }
}

#[test]
fn an_owner_stays_the_same_and_is_known_to_lookups_only() {
    let owned = OwnedTable::new(SMALL);
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    let owner = |name: &str| match table.lookup(name.as_bytes(), &mut Scratch::default()) {
        Lookup::Found(record) => record.owner(),
        other => panic!("{other:?}"),
    };
    writer.publish(&tool("a"), &routes(1)).unwrap();
    writer.publish(&tool("b"), &routes(1)).unwrap();
    let owners = [owner("a"), owner("b")];
    writer.publish(&tool("a"), &routes(2)).unwrap();
    assert_eq!([owner("a"), owner("b")], owners);
    assert_ne!(owners[0], owners[1]);
    table.for_each(&mut Scratch::default(), |record| assert_eq!(record.owner(), 0));
}

#[test]
fn adjacent_ranges_of_slots_visit_each_record_once() {
    let owned = OwnedTable::new(SMALL);
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    let names: Vec<_> = (10..30).map(|n| format!("t{n}")).collect();
    names.iter().for_each(|name| assert!(writer.publish(&tool(name), &routes(1)).is_ok()));
    for part in [1, 3, 7, 10, 28] {
        let mut seen = Vec::new();
        for start in (0..table.slots()).step_by(part) {
            let range = start..(start + part).min(table.slots());
            table.for_each_in(range, &mut Scratch::default(), |record| {
                seen.push(String::from_utf8(record.key().to_vec()).unwrap());
            });
        }
        seen.sort();
        assert_eq!(seen, names, "parts of {part} slots");
    }
}

#[test]
fn an_empty_slot_is_no_record_of_the_empty_name() {
    let owned = OwnedTable::new(SMALL);
    let table = owned.table();
    // A key with which the empty name has the tag of an empty slot.
    let has_tag = |key| {
        table.header.hash_key0.store(key, Relaxed);
        Slot(0).has_tag(table.hash(b""))
    };
    assert!((0..1 << 20).any(has_tag));
    assert!(matches!(table.lookup(&b""[..], &mut Scratch::default()), Lookup::Absent));
    Writer::attach(table).0.publish(&tool(""), &routes(1)).unwrap();
    assert_eq!(port_of(table, ""), Some(2));
}
