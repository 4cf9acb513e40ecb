//! libFuzzer's entry to `src/restart_history.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::restart_history::check(bytes));
