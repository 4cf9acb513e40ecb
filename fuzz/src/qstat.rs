//! Any output of qstat yields jobs or an error; truncated output is an error. What `qstat -j` says of a job becomes one short line.

use urlproxy::grid::parse_jobs;
use urlproxy::webservice::reason;

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
    let text = String::from_utf8_lossy(bytes);
    for output in [&*text, &format!("scheduling info: {text}"), &format!("error reason 1: {text}")] {
        let reason = reason(output);
        assert!(!reason.contains('\n') && reason.chars().count() <= 121, "{reason:?}");
    }
}
