//! libFuzzer's entry to `src/terminal_text.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::terminal_text::check(bytes));
