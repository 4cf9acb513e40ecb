//! libFuzzer's entry to `src/zone.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::zone::check(bytes));
