//! A snapshot file of any bytes is parsed or refused, without a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::sync::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    let _ = Snapshot::parse(bytes);
    // With a valid checksum, so that the parser behind it is reached too.
    let _ = Snapshot::parse(&with_foot(bytes));
});

fn with_foot(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.push(b'\n');
    let checksum = Snapshot::checksum(&bytes);
    bytes.extend_from_slice(format!("{{\"checksum\":\"{checksum}\"}}\n").as_bytes());
    bytes
}
