//! libFuzzer's entry to `src/qstat.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::qstat::check(bytes));
