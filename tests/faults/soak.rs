//! Random faults for an hour: reloads, killed companions, killed and flushed Redis.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use crate::churn::Churn;
use crate::record::Recorder;
use crate::report::{figure, table};
use crate::site::Site;

/// Faults, and how often each occurs in a round. Rounds follow each other until the time is over.
const FAULTS: &[(&str, usize)] =
    &[("reload", 100), ("companion killed", 100), ("other worker killed", 20), ("Redis killed", 20), ("FLUSHALL", 10)];
/// Default duration.
const MINUTES: u64 = 60;
/// Most log lines per fault.
const LINES_EACH: usize = 30;
/// A change is served within this time after any fault.
const SOON: Duration = Duration::from_secs(5);

/// `minutes` comes from `URLPROXY_SOAK`; `URLPROXY_SOAK_SEED` repeats an earlier run.
pub fn run(minutes: &str) -> ExitCode {
    let minutes = minutes.parse().unwrap_or(MINUTES).clamp(1, 24 * MINUTES);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    let seed = std::env::var("URLPROXY_SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now);
    println!("soak: {minutes} minutes, URLPROXY_SOAK_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    soak(Instant::now() + Duration::from_secs(minutes * 60), &mut random)
}

fn soak(end: Instant, random: &mut Rng) -> ExitCode {
    let begun = Instant::now();
    let mut site = Site::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut churn = Some(Churn::start(&site));
    let mut figures: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut recorder = Recorder::start(&site);
    let mut order: Vec<&str> = Vec::new();
    let mut done = 0;
    while Instant::now() < end {
        if order.is_empty() {
            order.extend(FAULTS.iter().flat_map(|(fault, times)| vec![*fault; *times]));
            random.shuffle(&mut order);
        }
        let Some(fault) = order.pop() else { break };
        match fault {
            "reload" => site.reload(),
            "companion killed" => site.kill_worker(site.companion()),
            "other worker killed" => {
                let companion = site.companion();
                let other = site.nginx.workers().into_iter().find(|pid| *pid != companion).expect("a second worker");
                site.kill_worker(other);
            }
            "Redis killed" => {
                recorder.note(fault);
                site.redis.stop();
                site.serves_on(random.u64(20..420));
                site.redis.start_again();
            }
            "FLUSHALL" => {
                recorder.note(fault);
                // No writes during the hold: flushed routes stay missing for a while.
                churn.take().map(Churn::finish);
                site.redis.cli(&["FLUSHALL"]);
                site.serves_on(200);
            }
            other => unreachable!("{other}"),
        }
        let recovered = site.recovers();
        figures.entry(fault).or_default().push(recovered);
        churn.get_or_insert_with(|| Churn::start(&site));
        site.serves_on(random.u64(..100));
        done += 1;
    }
    churn.map(Churn::finish);
    site.wait_companion();
    let recovered = site.recovers();
    let grown = recorder.finish();
    let report = site.finish(recovered, SOON, 100 + done * LINES_EACH);

    let row = |(fault, mut times): (&str, Vec<Duration>)| {
        times.sort_unstable();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        vec![fault.to_owned(), times.len().to_string(), figure(median), figure(longest)]
    };
    let is_late = figures.values().flatten().any(|time| *time > SOON);
    let rows: Vec<_> = figures.into_iter().map(row).collect();
    let report = report
        .expect(!is_late, format!("a change took longer than {SOON:?} to be served"))
        .expect(grown.is_empty(), format!("grown: {}", grown.join(", ")));
    println!("\n{}", table(&["fault", "times", "median to recover", "longest"], &rows));
    let count = &report.count;
    println!(
        "{done} faults in {}: {} requests, {} failed, {} in killed workers, slowest {}, {} log lines",
        figure(begun.elapsed()),
        count.requests,
        count.failures.len(),
        count.killed,
        figure(count.slowest),
        report.lines
    );
    report.problem_lines().iter().for_each(|line| println!("    {line}"));
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
