//! libFuzzer's entry to `src/pattern.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::pattern::check(bytes));
