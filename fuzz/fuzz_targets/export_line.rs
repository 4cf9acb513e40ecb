//! libFuzzer's entry to `src/export_line.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::export_line::check(bytes));
