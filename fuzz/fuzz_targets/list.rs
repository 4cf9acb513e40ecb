//! libFuzzer's entry to `src/list.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::list::check(bytes));
