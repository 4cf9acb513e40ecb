//! libFuzzer's entry to `src/backend.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::backend::check(bytes));
