//! Any output of qstat yields jobs or an error, never a crash; truncated output is an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::grid::parse_jobs;

const HEAD: &[u8] = b"<?xml version='1.0'?>\n<job_info><queue_info><job_list state=\"running\">";
const FOOT: &[u8] = b"</job_list></queue_info></job_info>";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(jobs) = parse_jobs(bytes) {
        assert!(jobs.len() <= bytes.len() / b"<job_list></job_list>".len());
        let end = bytes.trim_ascii_end();
        assert!(jobs.is_empty() || end.contains(&b'>'));
    }
    // Within a job, to reach the parser of its fields too.
    let _ = parse_jobs(&[HEAD, bytes, FOOT].concat());
});
