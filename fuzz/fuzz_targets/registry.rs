//! libFuzzer's entry to `src/registry.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::registry::check(bytes));
