//! libFuzzer's entry to `src/admin_answer.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::admin_answer::check(bytes));
