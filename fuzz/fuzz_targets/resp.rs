//! libFuzzer's entry to `src/resp.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::resp::check(bytes));
