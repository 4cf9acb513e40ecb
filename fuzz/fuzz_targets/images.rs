//! libFuzzer's entry to `src/images.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::images::check(bytes));
