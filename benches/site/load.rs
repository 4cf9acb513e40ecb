//! An HTTP load generator with a constant rate, and the backends for it. Run by `benches/site`.
//!
//! Each request has a due time, from which its latency counts: a stalled server delays all requests due meanwhile, even those
//! that could not be sent. (wrk sends the next request after the last answer; it would send fewer and see a single slow one:
//! coordinated omission.) Generator and backends are single-threaded, as they share a core, and cheap, so that the proxy under
//! test limits the rate.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

const USAGE: &str = "usage: load --address IP:PORT --requests FILE --connections N (--rate N --seconds N [--warm-up N] | --count N)

  --requests FILE   one request per line: PATH, or PATH, a tab and the expected beginning of the answer; repeated as needed
  --skip N          skip the first N lines
  --rate N          requests per second, for --seconds; those due in the first --warm-up seconds are not counted
  --count N         number of requests, sent on each connection one after the other without pause

One line of JSON: requests `due`, `failed` (no answer, or a status other than 200), `wrong` (unexpected text); latencies in us.

usage: load --serve

  Answers every request on the listening socket on standard input with the address that received it.";

/// How long to wait for answers at the end.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The timer's number in epoll, beside those of connections.
const TIMER: u64 = u64::MAX;
/// The listening socket's number.
const LISTENER: u64 = u64::MAX;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    address: SocketAddr,
    requests: String,
    connections: usize,
    skip: usize,
    rate: Option<f64>,
    /// Number of requests.
    count: usize,
    /// Number of first requests that are not counted.
    warm_up: usize,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let text = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
        let number =
            |name: &str| text(name).map(|value| value.parse::<f64>().map_err(|e| format!("{name} {value}: {e}")));
        let rate = number("--rate").transpose()?;
        let per_second = rate.unwrap_or(0.0);
        let warm_up = number("--warm-up").transpose()?.unwrap_or(0.0);
        let seconds = number("--seconds").transpose()?.unwrap_or(0.0) + warm_up;
        let count = if rate.is_some() { per_second * seconds } else { number("--count").transpose()?.unwrap_or(0.0) };
        Ok(Self {
            address: text("--address").ok_or(USAGE)?.parse()?,
            requests: text("--requests").ok_or(USAGE)?.clone(),
            connections: number("--connections").transpose()?.ok_or(USAGE)? as usize,
            skip: number("--skip").transpose()?.unwrap_or(0.0) as usize,
            rate,
            count: count as usize,
            warm_up: (per_second * warm_up) as usize,
        })
    }
}

/// A line of the file.
struct Request {
    bytes: Vec<u8>,
    expected: Vec<u8>,
}

impl Request {
    fn parse(line: &str) -> Self {
        let (path, expected) = line.split_once('\t').unwrap_or((line, ""));
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: tools.example.org\r\nAccept: */*\r\n\r\n").into_bytes();
        Self { bytes, expected: expected.into() }
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// The unanswered request.
    pending: Option<usize>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::with_capacity(4096), pending: None })
    }

    /// Takes a complete answer: whether its status is 200, and its body.
    fn take_answer(&mut self) -> Option<(bool, Vec<u8>)> {
        let end = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
        if self.received.len() < end + length {
            return None;
        }
        let body = self.received[end..end + length].to_vec();
        self.received.clear();
        Some((head.starts_with("http/1.1 200 "), body))
    }
}

struct Load {
    options: Options,
    requests: Vec<Request>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Idle connections, most recently used last.
    free: Vec<usize>,
    begun: Instant,
    /// Due times of the sent requests.
    due: Vec<Instant>,
    latencies: Vec<Duration>,
    failed: usize,
    wrong: usize,
}

impl Load {
    fn new(options: Options) -> Result<Self> {
        let requests: Vec<_> = std::fs::read_to_string(&options.requests)?.lines().map(Request::parse).collect();
        if requests.is_empty() || options.count == 0 || options.connections == 0 {
            return Err(USAGE.into());
        }
        let mut load = Self {
            requests,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: vec![],
            free: vec![],
            begun: Instant::now(),
            due: Vec::with_capacity(options.count),
            latencies: Vec::with_capacity(options.count),
            failed: 0,
            wrong: 0,
            options,
        };
        for number in 0..load.options.connections {
            load.connections.push(Connection::open(load.options.address)?);
            load.watch(number)?;
            load.free.push(number);
        }
        Ok(load)
    }

    fn watch(&self, number: usize) -> Result<()> {
        let stream = &self.connections[number].stream;
        Ok(epoll::add(&self.epoll, stream, EventData::new_u64(number as u64), EventFlags::IN)?)
    }

    fn run(&mut self) -> Result<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let interval = self.options.rate.map_or(Duration::from_millis(100), |rate| Duration::from_secs_f64(1.0 / rate));
        let interval = Timespec::try_from(interval)?;
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: interval, it_value: interval })?;
        epoll::add(&self.epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        self.begun = Instant::now();
        let seconds = self.options.rate.map_or(600.0, |rate| self.options.count as f64 / rate);
        let deadline = self.begun + Duration::from_secs_f64(seconds) + TIMEOUT;
        let mut events = Vec::with_capacity(1024);
        while self.latencies.len() < self.options.count && Instant::now() < deadline {
            self.send_due()?;
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    TIMER => drop(rustix::io::read(&timer, &mut [0; 8])),
                    number => self.receive(number as usize)?,
                }
            }
        }
        self.give_up();
        Ok(())
    }

    fn due_at(&self, request: usize) -> Instant {
        self.options.rate.map_or_else(Instant::now, |rate| self.begun + Duration::from_secs_f64(request as f64 / rate))
    }

    fn send_due(&mut self) -> Result<()> {
        while self.due.len() < self.options.count {
            let due = self.due_at(self.due.len());
            if due > Instant::now() {
                return Ok(());
            }
            let Some(number) = self.free.pop() else { return Ok(()) };
            let request = self.due.len();
            self.due.push(due);
            self.connections[number].pending = Some(request);
            let bytes = &self.requests[(self.options.skip + request) % self.requests.len()].bytes;
            // Small enough for the socket's buffer, which is empty.
            if !matches!(self.connections[number].stream.write(bytes), Ok(written) if written == bytes.len()) {
                self.reconnect(number)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let mut bytes = [0; 16384];
        let connection = &mut self.connections[number];
        match connection.stream.read(&mut bytes) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(1..) if connection.pending.is_none() => return self.reconnect(number),
            Ok(length @ 1..) => connection.received.extend_from_slice(&bytes[..length]),
            _ => return self.reconnect(number),
        }
        if let Some((is_ok, body)) = connection.take_answer()
            && let Some(request) = connection.pending.take()
        {
            self.free.push(number);
            self.latencies.push(self.due[request].elapsed());
            let expected = &self.requests[(self.options.skip + request) % self.requests.len()].expected;
            self.failed += usize::from(!is_ok);
            self.wrong += usize::from(is_ok && !body.starts_with(expected));
        }
        Ok(())
    }

    /// Replaces a closed connection; a request on it has failed.
    fn reconnect(&mut self, number: usize) -> Result<()> {
        if let Some(request) = self.connections[number].pending.take() {
            self.failed += 1;
            self.latencies.push(self.due[request].elapsed());
            self.free.push(number);
        }
        self.connections[number] = Connection::open(self.options.address)?;
        self.watch(number)
    }

    /// Unanswered and unsent requests took at least until now.
    fn give_up(&mut self) {
        let unanswered = self.connections.iter().filter_map(|connection| connection.pending);
        let unsent = self.due.len()..self.options.count;
        let waited: Vec<_> = unanswered.map(|request| self.due[request].elapsed()).collect();
        let waited: Vec<_> = waited.into_iter().chain(unsent.map(|request| self.due_at(request).elapsed())).collect();
        self.failed += waited.len();
        self.latencies.extend(waited);
    }

    fn report(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        // In the order of answers, which is close enough to that of due times.
        let counted = &mut self.latencies[self.options.warm_up..];
        counted.sort_unstable();
        let at =
            |share: f64| counted[((counted.len() as f64 * share) as usize).min(counted.len() - 1)].as_secs_f64() * 1e6;
        println!(
            "{{\"due\": {}, \"failed\": {}, \"wrong\": {}, \"seconds\": {seconds:.3}, \"p50\": {:.1}, \"p99\": {:.1}, \"p999\": {:.1}, \"max\": {:.1}}}",
            self.options.count,
            self.failed,
            self.wrong,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
        );
    }
}

/// A connection of a proxy to a backend.
struct Served {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Served {
    fn of(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let body = format!("{}\n", stream.local_addr()?.ip());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        Ok(Self { stream, request: vec![], answer: (head + &body).into_bytes() })
    }

    /// Answers a complete request without body. False if the connection has ended.
    fn answer(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read(buffer) {
            Err(e) => return e.kind() == ErrorKind::WouldBlock,
            Ok(0) => return false,
            Ok(length) => self.request.extend_from_slice(&buffer[..length]),
        }
        if !self.request.ends_with(b"\r\n\r\n") {
            return true;
        }
        self.request.clear();
        matches!(self.stream.write(&self.answer), Ok(written) if written == self.answer.len())
    }
}

/// Serves all backends until killed: one listening socket has all addresses.
fn serve() -> Result<std::convert::Infallible> {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections = HashMap::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = [0; 16384];
    let mut accepted = 0;
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                // The client may have gone already.
                let Ok(served) = listener.accept().map_err(Into::into).and_then(|(stream, _)| Served::of(stream))
                else {
                    continue;
                };
                epoll::add(&epoll, &served.stream, EventData::new_u64(accepted), EventFlags::IN)?;
                connections.insert(accepted, served);
                accepted += 1;
                continue;
            }
            if connections.get_mut(&number).is_some_and(|served: &mut Served| !served.answer(&mut buffer)) {
                connections.remove(&number);
            }
        }
    }
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--serve") {
        let Err(e) = serve();
        eprintln!("load: {e}");
        std::process::exit(1);
    }
    // `cargo bench` passes only `--bench`.
    if !args.iter().any(|arg| arg == "--address") {
        println!("{USAGE}");
        return;
    }
    let done = Options::parse(&args).and_then(Load::new).and_then(|mut load| {
        load.run()?;
        load.report();
        Ok(())
    });
    if let Err(e) = done {
        eprintln!("load: {e}");
        std::process::exit(1);
    }
}
