//! libFuzzer's entry to `src/domain_api.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::domain_api::check(bytes));
