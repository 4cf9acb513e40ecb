//! What a tenant can do within its rights: each row has an innocent tool's latency without and under the attack, and none of
//! the innocent tools' requests may fail.
//!
//! Times are printed, not asserted. What is asserted are failures, wrong answers, starvation for many seconds, and what a
//! request takes of the processor.

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

/// What is not over by then starves.
const SOON: Duration = Duration::from_secs(10);
/// Lines of a start, and of the routes that are set aside: the log names so many of a kind, and how many more there are.
const FEW: usize = 300;
/// How long the innocent tools are asked without an attack, for the comparison.
const IDLE: Duration = Duration::from_secs(3);

/// The middle and the worst hundredth of some times.
struct Times {
    median: Duration,
    p99: Duration,
}

impl Times {
    /// `sorted`: the shortest first, one at least.
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

/// Runs an attack; also what the innocent tools' requests took without it, and under it: `median, p99`.
fn under_attack<T>(site: &Site, attack: impl FnOnce() -> T) -> (T, String) {
    let ((), idle) = site.traffic.timed(|| thread::sleep(IDLE));
    let (outcome, attacked) = site.traffic.timed(attack);
    let (idle, attacked) = (Times::of(&idle), Times::of(&attacked));
    (outcome, format!("median, p99 of innocent requests: {attacked}, idle {idle}"))
}

/// Runs `f` while as many threads as there are numbers do their work, again and again; also how often each has.
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
    (outcome, threads.into_iter().map(|thread| thread.join().expect("the work ends well")).collect())
}

/// Waits, and says whether it came true by then.
fn comes_true(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
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

/// Waits until everything that was written to Redis before has been taken or set aside.
#[track_caller]
fn wait_in_step(site: &Site) {
    let generation = site.write_to(&site.redis, 0);
    site.wait_served(generation);
}

/// Writes a tool's routes: these patterns, all of them to one backend.
fn register<'a>(redis: &RedisServer, tool: &str, patterns: impl IntoIterator<Item = &'a String>, url: &str) {
    let key = format!("prefix:{tool}");
    let mut command = vec!["HSET", key.as_str()];
    command.extend(patterns.into_iter().flat_map(|pattern| [pattern.as_str(), url]));
    let added = redis.cli(&command);
    assert_eq!(added, ((command.len() - 2) / 2).to_string(), "{tool} is not registered");
}

/// What the workers have taken of the processor.
fn processor_time(site: &Site) -> Duration {
    let ticks = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a worker");
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>()
    };
    let total: u64 = site.nginx.workers().iter().map(ticks).sum();
    Duration::from_secs(total) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("a usual clock")
}

/// Waits for the workers to have nothing left of an attack in hand.
#[track_caller]
fn wait_listed(site: &Site, tool: &str) {
    wait_for(&format!("{tool} in the list"), || site.listed().contains(tool));
}
