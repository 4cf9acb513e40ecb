//! A snapshot file of any bytes is parsed or refused. What a table takes of it, its own snapshot gives to another table.

use urlproxy::sync::{Snapshot, encode_snapshot};
use urlproxy::table::{Capacity, OwnedTable, Table, Writer};

const CAPACITY: Capacity =
    Capacity { buckets: 64, cells: 20_000, tools: 256, health: 1, workers: 1, series: 1, notes: 1, questions: 1 };

thread_local! {
    static TABLES: &'static [OwnedTable; 2] = Box::leak(Box::new([OwnedTable::new(CAPACITY), OwnedTable::new(CAPACITY)]));
}

pub fn check(bytes: &[u8]) {
    let _ = Snapshot::parse(bytes);
    // With a valid checksum, so that the parser behind it is reached too.
    let _ = Snapshot::parse(&with_foot(bytes));
    // With a header, too: one record per line.
    let lines = bytes.split(|&byte| byte == b'\n').count();
    let head = format!("{{\"urlproxy_snapshot\":2,\"synced_at\":1,\"kinds\":[\"tool\"],\"records\":{lines}}}\n");
    if let Ok(snapshot) = Snapshot::parse(&with_foot(&[head.as_bytes(), bytes].concat())) {
        assert_eq!((snapshot.synced_at, snapshot.records.len()), (1, lines));
        check_restored(&snapshot);
    }
}

fn check_restored(snapshot: &Snapshot) {
    let [first, second] = TABLES.with(|tables| tables.each_ref().map(OwnedTable::table));
    let records = restored(snapshot, first);
    assert_eq!(restored(&records, second).records, records.records);
}

/// The snapshot of a table that was filled from another; the table is empty afterwards.
fn restored(snapshot: &Snapshot, table: Table<'_>) -> Snapshot {
    let (mut writer, recovered) = Writer::attach(table);
    assert_eq!((recovered.tools, recovered.damaged), (0, 0), "the last run has emptied the table");
    snapshot.restore_all(&mut writer);
    let mut restored = Snapshot::parse(&encode_snapshot(table)).expect("a table's own snapshot is valid");
    assert_eq!((restored.synced_at, &restored.kinds), (snapshot.synced_at, &snapshot.kinds));
    restored.records.sort_by(|a, b| a.key.cmp(&b.key));
    let (mut keys, mut backends) = (Vec::new(), 0);
    table.for_each(&mut Default::default(), |record| {
        keys.push(record.key().to_vec());
        backends += record.routes().map(|route| route.backends().count()).sum::<usize>();
    });
    let written = restored.records.iter().flat_map(|record| record.routes.values()).map(Vec::len).sum::<usize>();
    assert_eq!((restored.records.len(), written), (keys.len(), backends), "all of the table is in its snapshot");
    for key in keys {
        assert!(writer.withdraw(&key));
    }
    restored
}

fn with_foot(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.push(b'\n');
    let checksum = Snapshot::checksum(&bytes);
    bytes.extend_from_slice(format!("{{\"checksum\":\"{checksum}\"}}\n").as_bytes());
    bytes
}
