//! libFuzzer's entry to `src/accept_file.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::accept_file::check(bytes));
