//! Time of webservicemonitor for one round over 3,000 running tools. Run by `make bench`.
//!
//! The real program, startup included, over real files of 3,000 users; qstat and the proxy's list are scripted. Not a test: it
//! fails only if something cannot be measured.

#[path = "common/report.rs"]
mod report;
#[path = "../tests/monitor/site.rs"]
#[allow(dead_code, reason = "tests need more of it")]
mod site;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use report::row;
use site::Site;

const TOOLS: usize = 3_000;
const ROUNDS: usize = 7;

fn main() {
    let names: Vec<String> = (0..TOOLS).map(|number| format!("tool-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(site) = Site::with(&names) else { return };
    site.set_jobs(&names.iter().map(|name| (*name, "r", 5000)).collect::<Vec<_>>());
    site.set_list(&names);
    let mut taken: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let ended = site.once(&[]);
            assert!(ended.status == 0 && site.starts().is_empty(), "{}", ended.log);
            begun.elapsed()
        })
        .collect();
    taken.sort_unstable();
    let seconds = |took: Duration| format!("{:.2} s", took.as_secs_f64());
    row(&format!("a round over {TOOLS} manifests, without restarts"), &seconds(taken[ROUNDS / 2]), "< 2 s");
    row("the slowest of them", &seconds(taken[ROUNDS - 1]), "");
}
