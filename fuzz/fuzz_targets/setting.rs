//! libFuzzer's entry to `src/setting.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::setting::check(bytes));
