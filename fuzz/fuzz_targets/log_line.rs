//! libFuzzer's entry to `src/log_line.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::log_line::check(bytes));
