//! libFuzzer's entry to `src/active_proxy.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::active_proxy::check(bytes));
