//! libFuzzer's entry to `src/package_json.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::package_json::check(bytes));
