//! libFuzzer's entry to `src/ident.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::ident::check(bytes));
