//! libFuzzer's entry to `src/redis_url.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::redis_url::check(bytes));
