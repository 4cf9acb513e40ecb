//! Attacks within a tenant's rights: each row has the latency of innocent tools without and under the attack, and none of their
//! requests may fail.
//!
//! Latencies are printed, not asserted. Asserted are failures, wrong answers, starvation for many seconds, and CPU time per
//! request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::site::Site;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

pub mod backends;
pub mod patterns;
pub mod zone;

/// A longer delay is starvation.
const SOON: Duration = Duration::from_secs(10);
/// Most log lines of a start and of rejected routes, which are rate limited.
const FEW: usize = 300;
/// Duration of the baseline measurement without an attack.
const IDLE: Duration = Duration::from_secs(3);

/// Median and 99th percentile.
struct Times {
    median: Duration,
    p99: Duration,
}

impl Times {
    /// `sorted` is in ascending order and not empty.
    #[track_caller]
    fn of(sorted: &[Duration]) -> Self {
        assert!(!sorted.is_empty(), "nothing was measured");
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
        Self { median: at(0.5), p99: at(0.99) }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p99] = [self.median, self.p99].map(|time| time.as_secs_f64() * 1e3);
        write!(f, "{median:.1}, {p99:.1} ms")
    }
}

/// Runs an attack; also returns the latency of innocent requests under it and without it.
fn under_attack<T>(site: &Site, attack: impl FnOnce() -> T) -> (T, String) {
    let ((), idle) = site.traffic.timed(|| thread::sleep(IDLE));
    let (outcome, attacked) = site.traffic.timed(attack);
    let (idle, attacked) = (Times::of(&idle), Times::of(&attacked));
    (outcome, format!("median, p99 of innocent requests: {attacked}, idle {idle}"))
}

/// Runs `f` while one thread per number repeats `work`; also returns each thread's number of repetitions.
fn while_busy<T>(
    numbers: impl IntoIterator<Item = usize>,
    work: impl Fn(usize) + Send + Sync + 'static,
    f: impl FnOnce() -> T,
) -> (T, Vec<u64>) {
    let (work, stop) = (Arc::new(work), Arc::new(AtomicBool::new(false)));
    let start = |number| {
        let (work, stop) = (Arc::clone(&work), Arc::clone(&stop));
        thread::spawn(move || {
            let mut done = 0;
            while !stop.load(SeqCst) {
                work(number);
                done += 1;
            }
            done
        })
    };
    let threads: Vec<_> = numbers.into_iter().map(start).collect();
    let outcome = f();
    stop.store(true, SeqCst);
    (outcome, threads.into_iter().map(|thread| thread.join().expect("no panic in the work")).collect())
}

/// Waits for a condition; returns whether it became true in time.
fn becomes_true(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until everything written to Redis so far is published or rejected.
#[track_caller]
fn wait_in_step(site: &Site) {
    let generation = site.write_to(&site.redis, 0);
    site.wait_served(generation);
}

/// Registers a tool's patterns, all with one backend.
fn register<'a>(redis: &RedisServer, tool: &str, patterns: impl IntoIterator<Item = &'a String>, url: &str) {
    let key = format!("prefix:{tool}");
    let mut command = vec!["HSET", key.as_str()];
    command.extend(patterns.into_iter().flat_map(|pattern| [pattern.as_str(), url]));
    let added = redis.cli(&command);
    assert_eq!(added, ((command.len() - 2) / 2).to_string(), "{tool} is not registered");
}

/// CPU time of the workers.
fn cpu_time(site: &Site) -> Duration {
    let ticks = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a worker");
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>()
    };
    let total: u64 = site.nginx.workers().iter().map(ticks).sum();
    Duration::from_secs(total) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("a usual clock")
}

/// Waits until a tool is in the list.
#[track_caller]
fn wait_listed(site: &Site, tool: &str) {
    wait_for(&format!("{tool} in the list"), || site.listed().contains(tool));
}
