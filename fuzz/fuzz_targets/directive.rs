//! libFuzzer's entry to `src/directive.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::directive::check(bytes));
