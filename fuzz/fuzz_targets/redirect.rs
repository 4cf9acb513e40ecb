//! libFuzzer's entry to `src/redirect.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::redirect::check(bytes));
