//! A snapshot file of any bytes: parsed whole or refused, never a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::sync::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    let _ = Snapshot::parse(bytes);
    // With the right end, so that what the checksum guards is reached too.
    let _ = Snapshot::parse(&with_foot(bytes));
});

fn with_foot(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.push(b'\n');
    let checksum = Snapshot::checksum(&bytes);
    bytes.extend_from_slice(format!("{{\"checksum\":\"{checksum}\"}}\n").as_bytes());
    bytes
}
