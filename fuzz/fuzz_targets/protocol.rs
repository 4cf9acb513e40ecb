//! Commands to proxylistener: any bytes in pieces of any size give the same command or error, never a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::grid::parse_command;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = parse_command(bytes);
    let mut len = 0;
    let first = loop {
        let parsed = parse_command(&bytes[..len]);
        if parsed != Ok(None) || len == bytes.len() {
            break parsed;
        }
        len = bytes.len().min(len + usize::from(piece).max(1));
    };
    assert_eq!(first, whole);
});
