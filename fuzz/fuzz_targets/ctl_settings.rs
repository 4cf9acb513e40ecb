//! libFuzzer's entry to `src/ctl_settings.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::ctl_settings::check(bytes));
