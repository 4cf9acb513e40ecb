//! Output of real qstat versions, `tests/samples/qstat/`, and how the monitor reads it.

use std::fs;

use urlproxy::grid::{JobState, JobsError, parse_jobs};

/// The tool, the state, and whether the start time is known, of each job in a sample.
fn parsed(sample: &str) -> Result<Vec<(String, JobState, bool)>, JobsError> {
    let file = format!("{}/tests/samples/qstat/{sample}.xml", env!("CARGO_MANIFEST_DIR"));
    let jobs = parse_jobs(&fs::read(&file).unwrap_or_else(|error| panic!("{error}: {file}")))?;
    Ok(jobs
        .into_iter()
        .map(|job| (job.owner.trim_start_matches("tools.").to_owned(), job.state, job.since.is_some()))
        .collect())
}

#[test]
fn samples_have_these_jobs() {
    use JobState::{Deleting, Failed, Pending, Running};
    let samples: [(&str, &[(&str, JobState)]); 14] = [
        ("empty", &[]),
        ("running", &[("hello", Running)]),
        ("running_by_queue", &[("hello", Running)]),
        ("suspended", &[("hello", Running)]),
        ("queue_suspended", &[("hello", Running)]),
        ("deleted", &[("hello", Deleting)]),
        ("transferring", &[("hello", Deleting), ("weather", Running)]),
        ("pending", &[("weather", Pending)]),
        ("held", &[("hello", Running), ("weather", Pending)]),
        ("rescheduled", &[("weather", Running), ("map", Pending)]),
        ("error", &[("hello", Running), ("map", Failed), ("weather", Pending)]),
        ("array_pending", &[("weather", Pending), ("hello", Pending)]),
        ("array_running", &[("weather", Running), ("hello", Running), ("hello", Running), ("hello", Pending)]),
        (
            "array_error",
            &[("weather", Running), ("hello", Running), ("hello", Running), ("weather", Failed), ("hello", Pending)],
        ),
    ];
    for (sample, want) in samples {
        let has_begun = |state| matches!(state, Running | Deleting);
        let want: Vec<_> = want.iter().map(|(tool, state)| ((*tool).to_owned(), *state, has_begun(*state))).collect();
        assert_eq!(parsed(sample), Ok(want), "{sample}");
    }
    // -ext has no times.
    assert_eq!(parsed("running_extended"), Ok(vec![("hello".into(), Running, false)]));
}

#[test]
fn other_output_is_refused() {
    for sample in ["no_qmaster", "unknown_job", "error_in_detail", "array_running_in_detail"] {
        assert_eq!(parsed(sample), Err(JobsError::NoRoot), "{sample}");
    }
}

#[test]
fn job_names_are_unescaped() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/qstat/names.xml");
    let jobs = parse_jobs(&fs::read(file).unwrap()).unwrap();
    let names: Vec<_> = jobs.iter().map(|job| &*job.name).filter(|name| name.len() < 50).collect();
    // A mistake of Grid Engine: it prints %lt; for <.
    assert_eq!(names, ["generic-%lt;hello>&\"world\"", "it's", ">", "generic-]]>"]);
    assert!(jobs.iter().all(|job| job.owner == "tools.hello"));
}
