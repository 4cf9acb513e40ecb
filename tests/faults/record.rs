//! Records what a soak costs, every ten seconds: latencies, memory and descriptors, as a table that `tests/e2e/soak_plot.py` draws.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::churn::Worker;
use crate::site::Site;
use crate::support::nginx::children;

const EVERY: Duration = Duration::from_secs(10);
const HEAD: &str = "seconds,requests,failed,p50_us,p99_us,max_us,memory_kib,descriptors,redis_kib";
/// The peaks of the last third may exceed those of the first by this factor and these amounts.
const GROWTH: f64 = 1.10;
const MEMORY_SLACK_KIB: u64 = 4096;
const DESCRIPTORS_SLACK: u64 = 50;

/// Memory and descriptors of nginx at one time.
#[derive(Clone, Copy)]
struct Usage {
    memory_kib: u64,
    descriptors: u64,
}

/// A thread that records until it is finished.
pub struct Recorder {
    results: PathBuf,
    begun: Instant,
    events: File,
    worker: Worker<Vec<Usage>>,
}

impl Recorder {
    /// Writes to `target/soak/faults.csv` and `.events`.
    pub fn start(site: &Site) -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let results = target.join("soak/faults");
        fs::create_dir_all(target.join("soak")).expect("a directory for the records");
        let create = |extension| File::create(results.with_extension(extension)).expect("a file for the records");
        let (mut table, events, begun) = (create("csv"), create("events"), Instant::now());
        writeln!(table, "{HEAD}").expect("a record written");
        let (meter, master, redis) = (site.traffic.meter(), site.nginx.master(), site.redis.url());
        let worker = Worker::start(move |stop| {
            meter.take();
            let (mut usages, mut failed_before, mut next) = (Vec::new(), 0, Instant::now() + EVERY);
            while !stop() {
                if Instant::now() < next {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                next += EVERY;
                let (times, failed) = meter.take();
                let at = |share: f64| {
                    let index = (times.len() as f64 * share) as usize;
                    times.get(index.min(times.len().saturating_sub(1))).map_or(0, |time| time.as_micros())
                };
                let usage = usage_of(master);
                let line = format!(
                    "{},{},{},{},{},{},{},{},{}",
                    begun.elapsed().as_secs(),
                    times.len(),
                    failed - failed_before,
                    at(0.5),
                    at(0.99),
                    at(1.0),
                    usage.memory_kib,
                    usage.descriptors,
                    redis_kib(&redis)
                );
                writeln!(table, "{line}").expect("a record written");
                failed_before = failed;
                usages.push(usage);
            }
            usages
        });
        Self { results, begun, events, worker }
    }

    /// Notes an event at this time.
    pub fn note(&mut self, event: &str) {
        writeln!(self.events, "{},{event}", self.begun.elapsed().as_secs()).expect("an event written");
    }

    /// Stops, and draws the plot. Returns what has grown from the first to the last third of the time.
    pub fn finish(self) -> Vec<String> {
        let usages = self.worker.finish();
        let drawn = Command::new("python3").arg("tests/e2e/soak_plot.py").arg(&self.results).status();
        if drawn.is_ok_and(|status| status.success()) {
            println!("{}", self.results.with_extension("svg").display());
        }
        let third = usages.len() / 3;
        let peak = |part: &[Usage], of: fn(&Usage) -> u64| part.iter().map(of).max().unwrap_or(0);
        let grown = |what: &str, of: fn(&Usage) -> u64, slack: u64| {
            let (first, last) = (peak(&usages[..third], of), peak(&usages[usages.len() - third..], of));
            (last as f64 > first as f64 * GROWTH + slack as f64).then(|| format!("{what}: {first}, later {last}"))
        };
        let memory = grown("KiB of nginx's memory", |usage| usage.memory_kib, MEMORY_SLACK_KIB);
        let descriptors = grown("descriptors of nginx", |usage| usage.descriptors, DESCRIPTORS_SLACK);
        memory.into_iter().chain(descriptors).collect()
    }
}

/// Of the master and its workers, those that end soon included.
fn usage_of(master: u32) -> Usage {
    let mut usage = Usage { memory_kib: 0, descriptors: 0 };
    // A worker may end meanwhile.
    for pid in children(master).into_iter().chain([master]) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next());
        usage.memory_kib += memory.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        usage.descriptors += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64);
    }
    usage
}

/// 0 while Redis is down.
fn redis_kib(url: &str) -> u64 {
    let info = redis::Client::open(url)
        .and_then(|client| client.get_connection_with_timeout(EVERY / 10))
        .and_then(|mut connection| redis::cmd("INFO").arg("memory").query::<String>(&mut connection));
    let bytes = info.ok().and_then(|info| {
        info.lines().find_map(|line| line.strip_prefix("used_memory_rss:")?.trim().parse::<u64>().ok())
    });
    bytes.unwrap_or(0) / 1024
}
