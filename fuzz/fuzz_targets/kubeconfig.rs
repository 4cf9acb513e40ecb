//! libFuzzer's entry to `src/kubeconfig.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| urlproxy_fuzz::kubeconfig::check(bytes));
