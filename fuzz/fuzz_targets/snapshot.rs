//! libFuzzer's entry to `src/snapshot.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::snapshot::check(bytes));
