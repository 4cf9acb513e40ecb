//! Clients that constantly request every tool in turn and check each answer.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::nginx::{Response, try_get};
use crate::support::wait::wait_for;

/// Tools of each site: more than the withdrawal guard's floor.
pub const TOOLS: usize = 60;
/// Bits of an address that identify the tool, of the 24 after 127.
const TOOL_BITS: u32 = 6;
/// As many generations have different addresses, those of 44 minutes of changes.
const GENERATIONS: u64 = 1 << (24 - TOOL_BITS);
/// The first generation. Numbers wrap early in each run, as they do in a long one.
pub const FIRST: u64 = GENERATIONS - 200;
const CLIENTS: usize = 4;
/// Interval of one client's requests.
const PACE: Duration = Duration::from_millis(20);
/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The last 24 bits of a tool's address in a generation of routes.
pub fn number(generation: u64, tool: usize) -> u64 {
    (generation % GENERATIONS) << TOOL_BITS | (tool as u64 + 1)
}

/// The address of a tool in a generation of routes. The address in an answer thus identifies tool and generation.
pub fn address(generation: u64, tool: usize) -> Ipv4Addr {
    let [.., a, b, c] = number(generation, tool).to_be_bytes();
    Ipv4Addr::new(127, a, b, c)
}

/// The name of a tool.
pub fn name(tool: usize) -> String {
    format!("t{tool:02}")
}

/// State shared by all clients.
struct Shared {
    port: u16,
    begun: Instant,
    stop: AtomicBool,
    is_paused: AtomicBool,
    in_flight: AtomicU64,
    /// The newest generation written to Redis for any tool.
    newest: AtomicU64,
    writing: Mutex<()>,
    /// The newest generation answered for each tool: later answers must not be older.
    seen: [AtomicU64; TOOLS],
    may_be_older: AtomicBool,
    may_be_unready: AtomicBool,
    sent: AtomicU64,
    unready: AtomicU64,
    slowest_us: AtomicU64,
    /// Latencies, while they are recorded.
    timed: Mutex<Option<Vec<Duration>>>,
    failures: Mutex<Vec<Failure>>,
    breaks: Mutex<Vec<Break>>,
    kills: Mutex<Vec<(Instant, Instant)>>,
}

/// Allocates generations for writers.
pub struct Generations(Arc<Shared>);

impl Generations {
    /// Passes a new generation to `write`. One writer at a time, so that generations are written in order.
    pub fn write<T>(&self, write: impl FnOnce(u64) -> T) -> T {
        let _guard = self.0.writing.lock().unwrap();
        write(self.0.newest.fetch_add(1, SeqCst) + 1)
    }
}

/// The clients' figures for a recorder.
pub struct Meter(Arc<Shared>);

impl Meter {
    /// The latencies since the last call, in ascending order, and the number of failures so far.
    pub fn take(&self) -> (Vec<Duration>, usize) {
        let mut times = self.0.timed.lock().unwrap().replace(Vec::new()).unwrap_or_default();
        times.sort_unstable();
        (times, self.0.failures.lock().unwrap().len())
    }
}

/// A request with a wrong answer or none.
#[derive(Clone)]
pub struct Failure {
    at: Duration,
    path: String,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s: {}: {}", self.at.as_secs_f64(), self.path, self.what)
    }
}

/// A connection that was reset or closed during a request.
struct Break {
    from: Instant,
    to: Instant,
    failure: Failure,
}

/// The totals.
#[derive(Default)]
pub struct Count {
    pub requests: u64,
    pub failures: Vec<Failure>,
    /// Requests in flight in a killed worker.
    pub killed: u64,
    /// Answers of 503 with `Retry-After`, while allowed.
    pub unready: u64,
    pub slowest: Duration,
}

/// The clients, until [`Traffic::finish`] or drop.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub fn start(port: u16, may_be_unready: bool) -> Self {
        let shared = Arc::new(Shared {
            port,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            newest: AtomicU64::new(FIRST),
            writing: Mutex::default(),
            seen: [const { AtomicU64::new(0) }; TOOLS],
            may_be_older: AtomicBool::new(false),
            may_be_unready: AtomicBool::new(may_be_unready),
            sent: AtomicU64::new(0),
            unready: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            timed: Mutex::default(),
            failures: Mutex::default(),
            breaks: Mutex::default(),
            kills: Mutex::default(),
        });
        let client = |number: usize| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.run(number))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { shared, clients }
    }

    /// The generation of the tool's routes that gave this answer.
    pub fn generation_of(&self, tool: usize, answer: &Response) -> Option<u64> {
        self.shared.generation_of(tool, answer)
    }

    /// The source of generations for writers.
    pub fn generations(&self) -> Generations {
        Generations(Arc::clone(&self.shared))
    }

    /// The source of figures for a recorder.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.shared))
    }

    /// Number of answered requests.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(SeqCst)
    }

    /// Allows answers of an older generation after a newer one, while two tables serve requests.
    pub fn allow_older(&self, is_allowed: bool) {
        self.shared.may_be_older.store(is_allowed, SeqCst);
    }

    /// Disallows 503 with `Retry-After` from now on.
    pub fn must_be_ready(&self) {
        self.shared.may_be_unready.store(false, SeqCst);
    }

    /// Sends no requests during `f`, while no server listens.
    pub fn pause(&self, f: impl FnOnce()) {
        self.shared.is_paused.store(true, SeqCst);
        wait_for("the last answers", || self.shared.in_flight.load(SeqCst) == 0);
        f();
        self.shared.is_paused.store(false, SeqCst);
    }

    /// Runs `f`; also returns the latencies meanwhile, in ascending order.
    pub fn timed<T>(&self, f: impl FnOnce() -> T) -> (T, Vec<Duration>) {
        *self.shared.timed.lock().unwrap() = Some(Vec::new());
        let outcome = f();
        let mut times = self.shared.timed.lock().unwrap().take().unwrap_or_default();
        times.sort_unstable();
        (outcome, times)
    }

    /// Runs `kill`, which kills a worker and waits for its end; the worker's requests in flight are counted separately.
    pub fn while_killing(&self, kill: impl FnOnce()) {
        let from = Instant::now();
        kill();
        self.shared.kills.lock().unwrap().push((from, Instant::now()));
    }

    pub fn finish(mut self) -> Count {
        self.stop();
        let kills = self.shared.kills.lock().unwrap().clone();
        let in_flight = |b: &Break| kills.iter().any(|(from, to)| b.from <= *to && b.to >= *from);
        let mut failures = self.shared.failures.lock().unwrap().clone();
        let mut killed = 0;
        for broken in self.shared.breaks.lock().unwrap().drain(..) {
            if in_flight(&broken) {
                killed += 1;
            } else {
                failures.push(broken.failure);
            }
        }
        failures.sort_by_key(|failure| failure.at);
        Count {
            requests: self.sent(),
            failures,
            killed,
            unready: self.shared.unready.load(SeqCst),
            slowest: Duration::from_micros(self.shared.slowest_us.load(SeqCst)),
        }
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, number: usize) {
        let mut next = Instant::now() + PACE * number as u32 / CLIENTS as u32;
        for tool in (0..TOOLS).cycle().skip(number * TOOLS / CLIENTS) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            if self.stop.load(SeqCst) {
                return;
            }
            self.in_flight.fetch_add(1, SeqCst);
            if !self.is_paused.load(SeqCst) {
                self.ask(tool);
            }
            self.in_flight.fetch_sub(1, SeqCst);
            // Missed requests are not made up for, which would be a burst.
            next = (next + PACE).max(Instant::now());
        }
    }

    /// The generation of the tool's routes that gave this answer: the newest one that was written and has its address.
    fn generation_of(&self, tool: usize, answer: &Response) -> Option<u64> {
        let [127, a, b, c] = answer.body.parse::<Ipv4Addr>().ok()?.octets() else { return None };
        let number = u64::from(u32::from_be_bytes([0, a, b, c]));
        let is_its = answer.status == 200 && number % (1 << TOOL_BITS) == tool as u64 + 1;
        let newest = self.newest.load(SeqCst);
        let age = newest.wrapping_sub(number >> TOOL_BITS) % GENERATIONS;
        // One that was never written seems to be very old.
        (is_its && age < GENERATIONS / 2).then(|| newest.saturating_sub(age))
    }

    fn ask(&self, tool: usize) {
        let path = format!("/{}/", name(tool));
        let oldest = if self.may_be_older.load(SeqCst) { 0 } else { self.seen[tool].load(SeqCst) };
        let may_be_unready = self.may_be_unready.load(SeqCst);
        let from = Instant::now();
        let answer = try_get(self.port, &path, TIMEOUT);
        let to = Instant::now();
        self.slowest_us.fetch_max((to - from).as_micros() as u64, SeqCst);
        if let Some(times) = self.timed.lock().unwrap().as_mut() {
            times.push(to - from);
        }
        self.sent.fetch_add(1, SeqCst);
        let fail = |what: String| Failure { at: from - self.begun, path: path.clone(), what };
        let wrong = match answer {
            Ok(answer) => {
                if may_be_unready && answer.status == 503 && answer.head.contains("\r\nRetry-After: ") {
                    self.unready.fetch_add(1, SeqCst);
                    return;
                }
                match self.generation_of(tool, &answer) {
                    Some(it) if it < oldest => format!("generation {it} after {oldest}"),
                    Some(it) => {
                        self.seen[tool].fetch_max(it, SeqCst);
                        return;
                    }
                    None => format!("{} {:?}", answer.status, answer.body.lines().next().unwrap_or_default()),
                }
            }
            Err(error) if is_break(&error) => {
                let failure = fail(error.to_string());
                return self.breaks.lock().unwrap().push(Break { from, to, failure });
            }
            Err(error) => format!("{error} after {:?}", to - from),
        };
        self.failures.lock().unwrap().push(fail(wrong));
    }
}

/// Whether the error can come from the end of the peer process.
fn is_break(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
