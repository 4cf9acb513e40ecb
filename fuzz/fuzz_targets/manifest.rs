//! libFuzzer's entry to `src/manifest.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::manifest::check(bytes));
