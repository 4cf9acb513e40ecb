//! libFuzzer's entry to `src/automata.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::automata::check(bytes));
