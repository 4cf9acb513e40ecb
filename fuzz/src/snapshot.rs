//! A snapshot file of any bytes is parsed or refused.

use urlproxy::sync::Snapshot;

pub fn check(bytes: &[u8]) {
    let _ = Snapshot::parse(bytes);
    // With a valid checksum, so that the parser behind it is reached too.
    let _ = Snapshot::parse(&with_foot(bytes));
    // With a header, too: one record per line.
    let lines = bytes.split(|&byte| byte == b'\n').count();
    let head = format!("{{\"urlproxy_snapshot\":2,\"synced_at\":1,\"kinds\":[\"tool\"],\"records\":{lines}}}\n");
    if let Ok(snapshot) = Snapshot::parse(&with_foot(&[head.as_bytes(), bytes].concat())) {
        assert_eq!((snapshot.synced_at, snapshot.records.len()), (1, lines));
    }
}

fn with_foot(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.push(b'\n');
    let checksum = Snapshot::checksum(&bytes);
    bytes.extend_from_slice(format!("{{\"checksum\":\"{checksum}\"}}\n").as_bytes());
    bytes
}
