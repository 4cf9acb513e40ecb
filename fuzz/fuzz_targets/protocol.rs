//! libFuzzer's entry to `src/protocol.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::protocol::check(bytes));
