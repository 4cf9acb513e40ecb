//! A writer that constantly changes routes in Redis, and the delay until a change is served.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::site::Site;
use crate::support::nginx::try_get;
use crate::traffic::{TOOLS, address, name};

/// Changes per batch, and the interval of batches: 1,000 changes per second.
const BATCH: u64 = 10;
const EVERY: Duration = Duration::from_millis(10);
/// Tools that come and go, without traffic.
const COMING_AND_GOING: u64 = 400;
/// A change not served within this time is lost.
const LOST: Duration = Duration::from_secs(10);

/// A thread that runs until it is finished or dropped.
pub struct Worker<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    pub fn start(life: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || life(&|| is_stopped.load(SeqCst))));
        Self { stop, thread }
    }

    pub fn finish(mut self) -> T {
        self.stop.store(true, SeqCst);
        self.thread.take().expect("not finished yet").join().expect("no panic in the thread")
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// 1,000 changes per second: half of them to tools with traffic, the others to tools that come and go.
pub struct Churn(Worker<u64>);

impl Churn {
    pub fn start(site: &Site) -> Self {
        let (url, port, generations) = (site.redis.url(), site.tools_port(), site.traffic.generations());
        Self(Worker::start(move |stop| {
            let client = redis::Client::open(url).expect("an address");
            let (mut connection, mut written) = (None, 0);
            let mut next = Instant::now();
            while !stop() {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                next = (next + EVERY).max(Instant::now() - 100 * EVERY);
                // Redis may be down for a while: failed batches are written again.
                let Some(open) = connection.as_mut() else {
                    connection = client.get_connection_with_timeout(EVERY * 10).ok();
                    continue;
                };
                let batch = written..written + BATCH;
                let outcome = generations.write(|generation| changes(batch, generation, port).query::<()>(open));
                match outcome {
                    Ok(()) => written += BATCH,
                    Err(_) => connection = None,
                }
            }
            written
        }))
    }

    /// Stops; returns the number of changes written.
    pub fn finish(self) -> u64 {
        self.0.finish()
    }
}

fn changes(numbers: Range<u64>, generation: u64, port: u16) -> redis::Pipeline {
    let mut pipe = redis::pipe();
    for n in numbers {
        let (which, other) = ((n / 2) as usize % TOOLS, n / 2 % COMING_AND_GOING);
        let comes = (n / 2 / COMING_AND_GOING).is_multiple_of(2);
        if n.is_multiple_of(2) {
            let url = format!("http://{}:{port}", address(generation, which));
            pipe.hset(format!("prefix:{}", name(which)), ".*", url).ignore();
        } else if comes {
            pipe.hset(format!("prefix:x{other}"), ".*", format!("http://127.0.0.1:{port}")).ignore();
        } else {
            pipe.del(format!("prefix:x{other}")).ignore();
        }
    }
    pipe
}

/// Changes the route of one tool in a loop, and requests it until the change is served.
pub struct Lag(Worker<Vec<Duration>>);

impl Lag {
    pub fn start(site: &Site) -> Self {
        /// Pause between two changes.
        const PAUSE: Duration = Duration::from_millis(25);
        let (url, nginx, port) = (site.redis.url(), site.nginx.port, site.tools_port());
        Self(Worker::start(move |stop| {
            let mut connection = redis::Client::open(url).and_then(|c| c.get_connection()).expect("a connection");
            let mut lags = Vec::new();
            while !stop() {
                let address = format!("127.0.0.{}", 1 + lags.len() % 250);
                let url = format!("http://{address}:{port}");
                let begun = Instant::now();
                redis::pipe().hset("prefix:lag", ".*", url).ignore().query::<()>(&mut connection).expect("a change");
                let is_served = || try_get(nginx, "/lag/", LOST).is_ok_and(|answer| answer.body == address);
                while !is_served() && begun.elapsed() < LOST {}
                lags.push(begun.elapsed());
                thread::sleep(PAUSE);
            }
            lags
        }))
    }

    /// Stops; returns all delays, shortest first.
    pub fn finish(self) -> Vec<Duration> {
        let mut lags = self.0.finish();
        lags.sort_unstable();
        lags
    }
}
