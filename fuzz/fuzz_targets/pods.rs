//! libFuzzer's entry to `src/pods.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::pods::check(bytes));
