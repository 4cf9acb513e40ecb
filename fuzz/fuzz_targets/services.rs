//! libFuzzer's entry to `src/services.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::services::check(bytes));
