//! libFuzzer's entry to `src/host.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::host::check(bytes));
