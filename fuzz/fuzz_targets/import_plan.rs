//! libFuzzer's entry to `src/import_plan.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::import_plan::check(bytes));
