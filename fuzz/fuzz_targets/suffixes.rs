//! libFuzzer's entry to `src/suffixes.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::suffixes::check(bytes));
