//! libFuzzer's entry to `src/proc_net.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::proc_net::check(bytes));
