//! Reads in the output of `qstat -j` why a job waits or failed.

use crate::tenant::shorten;

/// About each queue that the job did not ask for.
const OTHER_QUEUE: &str = "because it is not contained in its hard queue list";
/// What the grid says if it knows no reason.
const NO_REASON: [&str; 2] = ["(Collecting of", "There are no messages available"];

/// The reason on one line; empty if there is none.
pub fn reason(output: &str) -> String {
    let (mut error, mut waiting, mut is_scheduling) = (None, None, false);
    for line in output.lines() {
        // A key at the start of a line; more values below it are indented.
        let (key, value) = match line.split_once(':') {
            Some((key, value)) if !line.starts_with([' ', '\t']) => (key.trim_end(), value.trim()),
            _ => ("", line.trim()),
        };
        if !key.is_empty() {
            is_scheduling = key == "scheduling info";
        }
        if key.starts_with("error reason") {
            error = error.or(Some(value));
        } else if is_scheduling
            && !value.is_empty()
            && !NO_REASON.iter().any(|text| value.starts_with(text))
            && !value.contains(OTHER_QUEUE)
        {
            // A reason of the job itself tells more than the state of a queue.
            let is_better = |value: &str| value.contains("cannot run") || value.contains("job");
            if waiting.is_none_or(|known| !is_better(known) && is_better(value)) {
                waiting = Some(value);
            }
        }
    }
    shorten(error.or(waiting).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found() {
        let head = "==============================================================\njob_number:                 7\n\
                    job_name:                   lighttpd-hello\n";
        for (rest, want) in [
            ("", ""),
            ("scheduling info:            (Collecting of scheduler job information is turned off)\n", ""),
            ("scheduling info:            There are no messages available\n", ""),
            (
                "error reason    1:          11/29/2026 10:00:00 [50001:1]: can't open output file\nscheduling info: x\n",
                "11/29/2026 10:00:00 [50001:1]: can't open output file",
            ),
            (
                "scheduling info:            queue instance \"a@b\" dropped because it is full\n                            \
                 (-l h_vmem=4G) cannot run in queue \"c\" because it offers only hc:h_vmem=1G\n",
                "(-l h_vmem=4G) cannot run in queue \"c\" because it offers only hc:h_vmem=1G",
            ),
            (
                "scheduling info:            queue instance \"a@b\" dropped because it is disabled\n                            \
                 cannot run in queue \"c\" because it is not contained in its hard queue list (-q)\n",
                "queue instance \"a@b\" dropped because it is disabled",
            ),
            (
                "scheduling info:            has no permission for cluster queue \"x\"\n",
                "has no permission for cluster queue \"x\"",
            ),
        ] {
            assert_eq!(reason(&format!("{head}{rest}")), want, "{rest}");
        }
        let usage = "scheduling info: a\nusage: b\n";
        assert_eq!(reason(usage), "a");
    }
}
