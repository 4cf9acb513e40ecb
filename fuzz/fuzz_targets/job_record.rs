//! libFuzzer's entry to `src/job_record.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::job_record::check(bytes));
