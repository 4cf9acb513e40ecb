//! Tests of the whole table: against a model, at its limits, with concurrent readers.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::route::{Kind, Pattern, Route, RouteKey};

mod reading;
mod state;

const SMALL: Capacity = Capacity { buckets: 4, cells: 40, tools: 24, health: 1, ..Capacity::NONE };

fn tool(name: &str) -> RouteKey {
    RouteKey::try_new(Kind::Tool, name.as_bytes()).unwrap()
}

/// One catch-all route to a backend whose port is the version plus one.
fn routes(version: u16) -> Vec<Route> {
    vec![Route {
        pattern: Pattern::try_new(".*").unwrap(),
        backends: vec![format!("http://10.0.0.1:{}", version + 1).parse().unwrap()],
    }]
}

/// A record of about `bytes` bytes.
fn long_routes(bytes: usize, version: u16) -> Vec<Route> {
    let mut routes = routes(version);
    let text = "0".repeat(bytes.clamp(1, 1000));
    routes.push(Route { pattern: Pattern::try_new(&text).unwrap(), backends: routes[0].backends.clone() });
    routes
}

fn port_of(table: Table<'_>, name: &str) -> Option<u16> {
    match table.lookup(name.as_bytes(), &mut Scratch::default()) {
        Lookup::Found(record) => {
            assert_eq!(record.key(), name.as_bytes());
            record.routes().next().and_then(|r| r.first_backend()).map(|b| b.port)
        }
        Lookup::Absent => None,
        Lookup::Contended => panic!("contended without a writer"),
    }
}

fn listed(table: Table<'_>) -> BTreeMap<String, u16> {
    let mut all = BTreeMap::new();
    table.for_each(&mut Scratch::default(), |record| {
        let name = String::from_utf8(record.key().to_vec()).unwrap();
        let port = record.routes().next().unwrap().first_backend().unwrap().port;
        assert!(all.insert(name, port).is_none(), "listed twice");
    });
    all
}

#[test]
fn insert_replace_withdraw() {
    let owned = OwnedTable::new(SMALL);
    let (mut writer, found) = Writer::attach(owned.table());
    assert_eq!(found, Recovered::default());
    assert_eq!(writer.publish(&tool("a"), &routes(1)), Ok(Published::Inserted));
    assert_eq!(writer.publish(&tool("a"), &routes(1)), Ok(Published::Unchanged));
    assert_eq!(writer.publish(&tool("a"), &routes(2)), Ok(Published::Replaced));
    assert_eq!(port_of(owned.table(), "a"), Some(3));
    assert_eq!((owned.table().header().live_tools(), owned.table().header().live_bytes()), (1, 64));
    assert!(writer.withdraw(b"a") && !writer.withdraw(b"a"));
    assert_eq!(port_of(owned.table(), "a"), None);
    assert_eq!((owned.table().header().live_tools(), owned.table().header().live_bytes()), (0, 0));
}

#[test]
fn a_full_table_refuses_only_the_new_tool() {
    let owned = OwnedTable::new(SMALL);
    let (mut writer, _) = Writer::attach(owned.table());
    for i in 0..24 {
        assert_eq!(writer.publish(&tool(&format!("t{i}")), &routes(i)), Ok(Published::Inserted), "{i}");
    }
    let error = writer.publish(&tool("one-more"), &routes(99)).unwrap_err();
    assert!(error.to_string().contains("no room for tool one-more: 24 of 24 records, 1536 bytes"), "{error}");
    assert!(writer.publish(&tool("another"), &routes(99)).is_err());
    assert_eq!(owned.table().header().refused_full(), 2);
    assert_eq!(listed(owned.table()), (0..24).map(|i| (format!("t{i}"), i + 1)).collect());
    assert!(writer.withdraw(b"t7"));
    assert_eq!(writer.publish(&tool("one-more"), &routes(99)), Ok(Published::Inserted));
}

#[test]
fn a_change_without_room_withdraws_the_old_record() {
    let owned = OwnedTable::new(SMALL);
    let (table, header) = (owned.table(), owned.table().header());
    let (mut writer, _) = Writer::attach(table);
    // 39 cells, ten of them for changes.
    writer.publish(&tool("b"), &long_routes(700, 1)).unwrap();
    writer.publish(&tool("a"), &long_routes(880, 1)).unwrap();
    assert_eq!((header.free_bytes(), header.reserve_bytes()), (12 * 64, 10 * 64));
    assert_eq!(header.largest_free_bytes(), header.free_bytes());
    // Larger than the free cells, smaller than these plus those of the old record.
    assert_eq!(writer.publish(&tool("a"), &long_routes(990, 2)), Ok(Published::Replaced));
    assert_eq!((port_of(table, "a"), header.displaced()), (Some(3), 0));
    let mut longer = long_routes(990, 3);
    longer.extend(long_routes(900, 3));
    let error = writer.publish(&tool("a"), &longer).unwrap_err();
    assert!(matches!(error, PublishError::TableFull { .. }), "{error}");
    assert_eq!((port_of(table, "a"), port_of(table, "b")), (None, Some(2)));
    assert_eq!((header.displaced(), header.refused_full()), (1, 1));
    assert_eq!(Writer::attach(table).1, Recovered { tools: 1, damaged: 0 });
    assert_eq!(writer.publish(&tool("a"), &long_routes(880, 4)), Ok(Published::Inserted));
}

#[test]
fn new_records_leave_a_reserve_for_changes() {
    let owned = OwnedTable::new(SMALL);
    let (mut writer, _) = Writer::attach(owned.table());
    let fit = (0..).take_while(|i| writer.publish(&tool(&format!("t{i}")), &long_routes(90, 1)).is_ok()).count();
    assert_eq!(fit, 9, "29 of 39 cells, three each");
    for i in 0..fit {
        assert_eq!(writer.publish(&tool(&format!("t{i}")), &long_routes(150, 2)), Ok(Published::Replaced), "t{i}");
    }
    let header = owned.table().header();
    assert_eq!((header.displaced(), header.refused_full()), (0, 1));
    assert!(header.largest_free_bytes() <= header.free_bytes());
}

#[test]
fn no_record_takes_more_than_its_share() {
    let owned = OwnedTable::new(Capacity { buckets: 4, cells: 400, tools: 24, health: 1, ..Capacity::NONE });
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    writer.publish(&tool("a"), &routes(1)).unwrap();
    let large: Vec<_> = (0..5).flat_map(|i| long_routes(900, i)).collect();
    let error = writer.publish(&tool("a"), &large).unwrap_err();
    assert!(error.to_string().ends_with("expected at most 4096"), "{error}");
    assert_eq!((port_of(table, "a"), table.header().displaced()), (None, 1));
    // A record from a larger zone may be too large here; the next scan repairs that.
    let roomy = OwnedTable::new(Capacity { buckets: 4, cells: 200_000, tools: 24, health: 1, ..Capacity::NONE });
    let (mut from, _) = Writer::attach(roomy.table());
    from.publish(&tool("a"), &large).unwrap();
    from.publish(&tool("b"), &routes(7)).unwrap();
    assert_eq!(carry_over(roomy.table(), table), Ok(1));
    assert_eq!((port_of(table, "a"), port_of(table, "b")), (None, Some(8)));
}

#[test]
fn a_record_may_have_exactly_its_share() {
    let owned = OwnedTable::new(Capacity { buckets: 4, cells: 400, tools: 24, health: 1, ..Capacity::NONE });
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    let large: Vec<_> = (0..4).flat_map(|i| long_routes(950, i)).collect();
    let padding = table.record_limit() - record_bytes(&tool(""), &large);
    assert_eq!(writer.publish(&tool(&"a".repeat(padding)), &large), Ok(Published::Inserted));
    let too_long = tool(&"a".repeat(padding + 1));
    let refused = PublishError::TooLarge { key: too_long.clone(), bytes: 4097, limit: 4096 };
    assert_eq!(writer.publish(&too_long, &large), Err(refused));
}

#[test]
fn a_record_withdrawn_for_lack_of_room_may_return_into_the_reserve() {
    let owned = OwnedTable::new(SMALL);
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    writer.publish(&tool("a"), &long_routes(11, 1)).unwrap();
    let fit = (0..).take_while(|i| writer.publish(&tool(&format!("t{i}")), &long_routes(130, 1)).is_ok()).count();
    assert_eq!((fit, table.header().free_bytes()), (9, 11 * 64), "39 cells, of which ten are kept free");
    assert!(writer.publish(&tool("a"), &long_routes(760, 2)).is_err(), "13 cells");
    assert_eq!((port_of(table, "a"), table.header().displaced()), (None, 1));
    assert!(writer.publish(&tool("new"), &long_routes(130, 1)).is_err());
    assert_eq!(writer.publish(&tool("a"), &long_routes(130, 3)), Ok(Published::Inserted));
    // Once the source has withdrawn it, it is as new as others.
    assert!(writer.withdraw(b"a"));
    assert!(writer.publish(&tool("a"), &long_routes(130, 4)).is_err());
}

#[test]
fn carried_records_may_use_the_reserve() {
    let (old, new) = (OwnedTable::new(SMALL), OwnedTable::new(SMALL));
    let (mut writer, _) = Writer::attach(old.table());
    let names: Vec<_> = (0..9).map(|i| tool(&format!("t{i}"))).collect();
    names.iter().for_each(|name| assert!(writer.publish(name, &long_routes(90, 1)).is_ok()));
    names.iter().for_each(|name| assert!(writer.publish(name, &long_routes(150, 2)).is_ok()));
    assert_eq!(carry_over(old.table(), new.table()), Ok(9));
}

#[test]
fn slots_without_a_valid_record_are_cleared() {
    let owned = OwnedTable::new(SMALL);
    let (mut writer, _) = Writer::attach(owned.table());
    writer.publish(&tool("a"), &routes(1)).unwrap();
    let table = owned.table();
    let words: Vec<_> = table.buckets.iter().flat_map(|b| &b.slots).collect();
    let good = words.iter().map(|w| w.load(Relaxed)).find(|&w| w != 0).unwrap();
    let empty: Vec<_> = words.iter().filter(|w| w.load(Relaxed) == 0).collect();
    for (word, bad) in empty.iter().zip([good, good ^ 1, good | 0xfff << 20, 1 << 63, u64::MAX]) {
        word.store(bad, Relaxed);
    }
    let (_, found) = Writer::attach(table);
    assert_eq!(found, Recovered { tools: 1, damaged: 5 });
    assert_eq!(listed(table), BTreeMap::from([("a".into(), 2)]));
}

#[test]
fn counters_survive_changes_and_absence_but_not_reassignment() {
    let owned = OwnedTable::new(Capacity { tools: 2, ..SMALL });
    let table = owned.table();
    let line_of = |name: &str| match table.lookup(name.as_bytes(), &mut Scratch::default()) {
        Lookup::Found(record) => table.counters(record.counters()).unwrap(),
        _ => panic!("{name} is there"),
    };
    let (mut writer, _) = Writer::attach(table);
    writer.publish(&tool("a"), &routes(1)).unwrap();
    line_of("a").add(line_of("a").ticket(), StatusClass::Success, 100, 5);
    writer.publish(&tool("a"), &routes(2)).unwrap();
    assert_eq!(line_of("a").tally().bytes, 100);
    writer.withdraw(b"a");
    writer.publish(&tool("b"), &routes(1)).unwrap();
    let (mut writer, _) = Writer::attach(table);
    writer.publish(&tool("a"), &routes(3)).unwrap();
    assert_eq!(line_of("a").tally().bytes, 100);
    writer.withdraw(b"a");
    writer.publish(&tool("c"), &routes(1)).unwrap();
    assert_eq!(line_of("c").tally(), Tally::default());
}

#[test]
fn a_sweep_finds_unseen_keys() {
    let owned = OwnedTable::new(SMALL);
    let (mut writer, _) = Writer::attach(owned.table());
    for name in ["a", "b", "c", "d"] {
        writer.publish(&tool(name), &routes(1)).unwrap();
    }
    writer.begin_sweep();
    writer.publish(&tool("a"), &routes(1)).unwrap();
    writer.publish(&tool("b"), &routes(2)).unwrap();
    assert!(writer.confirm(b"c") && !writer.confirm(b"x"));
    assert_eq!(writer.unseen(), [tool("d")]);
}

#[test]
fn a_sweep_tells_all_slots_apart() {
    let owned = OwnedTable::new(Capacity { buckets: 40, cells: 800, tools: 280, ..SMALL });
    let (mut writer, _) = Writer::attach(owned.table());
    let keys: Vec<_> = (0..)
        .map(|n| tool(&format!("t{n}")))
        .filter(|key| owned.table().home(owned.table().hash(key.as_bytes())) == 0)
        .take(280)
        .collect();
    keys.iter().for_each(|key| assert!(writer.publish(key, &routes(1)).is_ok()));
    writer.begin_sweep();
    assert!(keys.iter().step_by(5).all(|key| writer.confirm(key.as_bytes())));
    let mut unseen = writer.unseen();
    let mut want: Vec<_> = (0..).zip(keys).filter(|(n, _)| n % 5 != 0).map(|(_, key)| key).collect();
    unseen.sort();
    want.sort();
    assert_eq!(unseen, want);
}

#[test]
fn formatted_memory_can_be_attached() {
    let bytes = 1 << 20;
    let layout = std::alloc::Layout::from_size_align(bytes, 64).unwrap();
    // SAFETY: the layout has a size, and the memory is never freed.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) };
    // SAFETY: allocated just above, for good, with this size and alignment; the same holds for the calls below.
    assert!(unsafe { Table::attach(memory, bytes) }.is_err_and(|e| e == LayoutError::Foreign));
    // SAFETY: as above.
    let table = unsafe { Table::format(memory, bytes, [1, 2]) }.unwrap();
    Writer::attach(table).0.publish(&tool("a"), &routes(1)).unwrap();
    // SAFETY: as above.
    let again = unsafe { Table::attach(memory, bytes) }.unwrap();
    assert_eq!((port_of(again, "a"), again.capacity()), (Some(2), Capacity::of_bytes(bytes).unwrap()));
    // A name that its zone keeps, and that other zones do not have.
    assert_eq!(again.pseudonym(), table.pseudonym());
    assert_ne!(again.pseudonym(), OwnedTable::new(SMALL).table().pseudonym());
    // SAFETY: as above; the smaller size must be refused.
    assert!(unsafe { Table::attach(memory, bytes / 2) }.is_err());
}

#[test]
fn readers_see_complete_records_during_rewrites() {
    // Tools a0..a9 are replaced in a loop, with records of changing size; b0..b9 are inserted and withdrawn.
    let owned = OwnedTable::new(Capacity { buckets: 4, cells: 400, tools: 24, health: 1, ..Capacity::NONE });
    let table = owned.table();
    let (mut writer, _) = Writer::attach(table);
    let stop = AtomicBool::new(false);
    (0..10).for_each(|i| assert!(writer.publish(&tool(&format!("a{i}")), &long_routes(1, 1)).is_ok()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut scratch = Scratch::default();
                while !stop.load(Relaxed) {
                    for name in (0..10).flat_map(|i| [format!("a{i}"), format!("b{i}")]) {
                        match table.lookup(name.as_bytes(), &mut scratch) {
                            Lookup::Found(record) => {
                                let ports: Vec<_> = record.routes().map(|r| r.first_backend().unwrap().port).collect();
                                let pattern = record.routes().nth(1).unwrap().pattern;
                                assert_eq!(ports, [ports[0]; 2]);
                                assert_eq!(pattern.len(), usize::from(ports[0] - 1), "{name} is torn");
                            }
                            Lookup::Absent => assert!(name.starts_with('b'), "{name} is lost"),
                            Lookup::Contended => panic!("{name} is contended"),
                        }
                    }
                }
            });
        }
        let outcome = (0..5_000usize).try_for_each(|round| {
            let (i, size) = (round % 10, 1 + round * 7 % 900);
            let routes = long_routes(size, size as u16);
            writer.publish(&tool(&format!("a{i}")), &routes)?;
            if round % 20 < 10 {
                writer.publish(&tool(&format!("b{i}")), &routes)?;
            } else {
                writer.withdraw(format!("b{i}").as_bytes());
            }
            Ok::<_, PublishError>(())
        });
        stop.store(true, Relaxed);
        outcome.unwrap();
    });
    assert_eq!(Writer::attach(table).1.damaged, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, u16, usize),
    Withdraw(u8),
    Reattach,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..30, 0u16..500, 1usize..300).prop_map(|(t, v, s)| Step::Publish(t, v, s)),
        3 => (0u8..30).prop_map(Step::Withdraw),
        1 => Just(Step::Reattach),
    ]
}

proptest! {
    #[test]
    fn the_table_equals_a_map_after_any_steps(steps in proptest::collection::vec(step(), 1..120)) {
        let owned = OwnedTable::new(SMALL);
        let (mut writer, _) = Writer::attach(owned.table());
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Publish(t, version, size) => {
                    let name = format!("t{t}");
                    let outcome = writer.publish(&tool(&name), &long_routes(size, version));
                    match outcome {
                        Ok(Published::Inserted) => prop_assert!(model.insert(name, version + 1).is_none()),
                        Ok(_) => prop_assert!(model.insert(name, version + 1).is_some()),
                        // The old record is withdrawn as stale.
                        Err(_) => _ = model.remove(&name),
                    }
                }
                Step::Withdraw(t) => {
                    let name = format!("t{t}");
                    prop_assert_eq!(writer.withdraw(name.as_bytes()), model.remove(&name).is_some());
                }
                Step::Reattach => {
                    let found;
                    (writer, found) = Writer::attach(owned.table());
                    prop_assert_eq!(found, Recovered { tools: model.len() as u64, damaged: 0 });
                }
            }
            prop_assert_eq!(&listed(owned.table()), &model);
            for t in 0..30 {
                let name = format!("t{t}");
                prop_assert_eq!(port_of(owned.table(), &name), model.get(&name).copied());
            }
            prop_assert_eq!(owned.table().header().live_tools(), model.len() as u64);
        }
    }
}

#[test]
fn carrying_over_keeps_tools_counters_and_state() {
    let (old, new) = (OwnedTable::new(SMALL), OwnedTable::new(Capacity { buckets: 8, cells: 80, ..SMALL }));
    let (mut writer, _) = Writer::attach(old.table());
    for (version, name) in (1..).zip(["a", "b", "c"]) {
        writer.publish(&tool(name), &routes(version)).unwrap();
    }
    writer.publish(&tool("long"), &long_routes(300, 9)).unwrap();
    writer.mark_synced(1234, 5, &[Kind::Tool, Kind::Domain]);
    writer.note_held(2, Some(66));
    writer.note_held(2, Some(77));
    fn counters<'a>(table: Table<'a>, name: &str) -> &'a Counters {
        match table.lookup(name.as_bytes(), &mut Scratch::default()) {
            Lookup::Found(record) => table.counters(record.counters()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    let (from, to) = (old.table(), new.table());
    let line = counters(from, "b");
    line.add(line.ticket(), StatusClass::Success, 10, 3);
    assert_eq!(carry_over(from, to), Ok(4));
    assert_eq!(listed(to), listed(from));
    assert_eq!(counters(to, "b").tally(), Tally { by_class: [0, 1, 0, 0, 0], bytes: 10, milliseconds: 3 });
    assert_eq!(counters(to, "a").tally(), Tally::default());
    let header = to.header();
    assert_eq!((header.synced_at(), header.rejected(), header.held(), header.held_since()), (1234, 5, 2, Some(77)));
    assert_eq!(header.held_first(), Some(66));
    assert_eq!(header.age_seconds(1300), Some(66));
    assert_eq!(header.loaded_from(), Some(LoadedFrom::Source));
    assert_eq!(header.known(), [Kind::Tool, Kind::Domain]);
}

#[test]
fn tools_and_redirects_share_homes_and_fill_a_table() {
    let owned = OwnedTable::new(Capacity::of_bytes(2 << 20).unwrap());
    let table = owned.table();
    let pairs = table.capacity().tools / 2;
    let mut writer = Writer::attach(table).0;
    let redirect = |name: &str| RouteKey::try_new(Kind::Redirect, name.as_bytes()).unwrap();
    for name in (0..pairs).map(|n| format!("t{n}")) {
        assert_eq!(writer.publish(&tool(&name), &routes(1)), Ok(Published::Inserted), "{name}");
        assert_eq!(writer.publish(&redirect(&name), &[]), Ok(Published::Inserted), "{name}");
        let (own, other) = (table.hash(name.as_bytes()), table.hash(redirect(&name).as_bytes()));
        assert!(own != other && table.home(own) == table.home(other));
    }
    let mut scratch = Scratch::default();
    for name in (0..pairs).map(|n| format!("t{n}")) {
        let hashed = table.hash_key(LookupKey::tool(name.as_bytes()));
        assert!(
            matches!(table.lookup_hashed(&hashed, &mut scratch), Lookup::Found(record) if record.key() == name.as_bytes())
        );
        let hashed = hashed.redirect().unwrap();
        let key = redirect(&name);
        assert!(
            matches!(table.lookup_hashed(&hashed, &mut scratch), Lookup::Found(record) if record.key() == key.as_bytes())
        );
    }
}

#[test]
fn a_full_bucket_overflows_into_the_next_and_the_last_into_the_first() {
    let owned = OwnedTable::new(Capacity { tools: 28, ..SMALL });
    let table = owned.table();
    let overflows = || table.buckets.iter().map(|bucket| bucket.overflow.load(Relaxed)).collect::<Vec<_>>();
    let has_last_home = |name: &String| table.home(table.hash(name.as_bytes())) == table.buckets.len() - 1;
    let names: Vec<_> = (0..).map(|n| format!("t{n}")).filter(has_last_home).take(28).collect();
    let mut writer = Writer::attach(table).0;
    for name in &names {
        assert_eq!(writer.publish(&tool(name), &routes(1)), Ok(Published::Inserted), "{name}");
    }
    // Of the 28, seven fit each bucket: the last, the first, the second, the third.
    assert_eq!(overflows(), [14, 7, 0, 21]);
    assert!(names.iter().all(|name| port_of(table, name) == Some(2)));
    let (mut writer, found) = Writer::attach(table);
    assert_eq!((found, overflows()), (Recovered { tools: 28, damaged: 0 }, vec![14, 7, 0, 21]));
    let (last, others) = names.split_last().unwrap();
    assert!(others.iter().all(|name| writer.withdraw(name.as_bytes())));
    assert_eq!((port_of(table, last), overflows()), (Some(2), vec![1, 1, 0, 1]));
    assert!(writer.withdraw(last.as_bytes()));
    assert_eq!(overflows(), [0; 4]);
}

#[test]
fn carrying_over_into_a_too_small_table_fails() {
    let (old, new) = (OwnedTable::new(SMALL), OwnedTable::new(Capacity { tools: 2, ..SMALL }));
    let (mut writer, _) = Writer::attach(old.table());
    ["a", "b", "c"].iter().for_each(|name| assert!(writer.publish(&tool(name), &routes(1)).is_ok()));
    assert!(matches!(carry_over(old.table(), new.table()), Err(PublishError::TableFull { capacity: 2, .. })));
    assert_eq!(listed(old.table()).len(), 3);
    assert_eq!(new.table().header().loaded_from(), None);
}
