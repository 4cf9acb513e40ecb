//! libFuzzer's entry to `src/site_config.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::site_config::check(bytes));
