//! libFuzzer's entry to `src/lookup.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::lookup::check(bytes));
