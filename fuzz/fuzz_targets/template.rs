//! libFuzzer's entry to `src/template.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::template::check(bytes));
