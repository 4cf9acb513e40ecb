//! libFuzzer's entry to `src/loop_mark.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::loop_mark::check(bytes));
