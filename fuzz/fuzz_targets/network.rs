//! libFuzzer's entry to `src/network.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::network::check(bytes));
