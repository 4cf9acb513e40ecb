//! Any output of qstat yields jobs or an error; truncated output is an error.

use urlproxy::grid::parse_jobs;

const HEAD: &[u8] = b"<?xml version='1.0'?>\n<job_info><queue_info><job_list state=\"running\">";
const FOOT: &[u8] = b"</job_list></queue_info></job_info>";

pub fn check(bytes: &[u8]) {
    if let Ok(jobs) = parse_jobs(bytes) {
        assert!(jobs.len() <= bytes.len() / b"<job_list></job_list>".len());
        let end = bytes.trim_ascii_end();
        assert!(jobs.is_empty() || end.contains(&b'>'));
    }
    // Within a job, to reach the parser of its fields too.
    let _ = parse_jobs(&[HEAD, bytes, FOOT].concat());
}
