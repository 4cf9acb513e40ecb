//! Benchmark of many proxies on one Redis: what each costs, and what a lost connection of all of them costs. Run by `make bench`.
//!
//! Each proxy is a companion in a process and with a table of its own; there is no nginx. All share this machine's processors with
//! Redis, so delays with 100 companions are far above those of 100 machines, and processor times are the figures to rely on.
//! `cargo bench --bench proxies -- 100x3000` measures 100 companions with 3,000 tools only, `-- outages 100x3000`
//! of that only the lost connections. Not a test: nothing here fails.

#[path = "common/child.rs"]
mod child;
#[path = "common/fleet.rs"]
mod fleet;
#[path = "common/report.rs"]
mod report;
#[path = "common/server.rs"]
mod server;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use fleet::{Fleet, run_if_companion};
use report::row;
use server::{Sentinel, Server};
use urlproxy::registry::{Origin, Ownership, key_of, register};
use urlproxy::route::{Kind, Pattern, RouteKey, ToolName};

/// Companions and tools.
const SITES: [(usize, usize); 7] =
    [(1, 3_000), (10, 3_000), (100, 3_000), (1, 20_000), (10, 20_000), (100, 20_000), (10, 100_000)];
/// How long changes are made at one rate.
const STEADY: Duration = Duration::from_secs(5);
/// Changes per second that are timed until all tables have them.
const TIMED_PER_SECOND: u32 = 50;
/// Time between two commands of a client of Redis that is timed, unless one takes longer.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
/// How long the idle state is measured.
const QUIET: Duration = Duration::from_secs(2);
/// The full comparisons between these are of no interest here.
const NO_RESYNC: Duration = Duration::from_secs(3600);

fn main() {
    run_if_companion();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let only_outages = args.iter().any(|arg| arg == "outages");
    let asked = args.iter().filter_map(|arg| arg.split_once('x'));
    let mut sites: Vec<_> =
        asked.filter_map(|(companions, tools)| companions.parse().ok().zip(tools.parse().ok())).collect();
    if sites.is_empty() {
        sites = SITES.to_vec();
    }
    if !only_outages {
        measure_registrations();
    }
    for (companions, tools) in sites {
        Site::measure(companions, tools, only_outages);
    }
}

/// What the script of proxylistener costs, without companions.
fn measure_registrations() {
    const COUNT: usize = 5_000;
    let Some(mut server) = Server::start(&[]) else { return };
    let mut connection = server.connect();
    let origin = Origin {
        source: "bench".into(),
        owner: "tools.a".into(),
        host: "10.0.0.1".into(),
        since: 1,
        destination: None,
    };
    let before = server.cpu_seconds();
    for number in 0..COUNT {
        let tool = ToolName::try_new(format!("tool-{number}").as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        let url = format!("http://10.0.{}.{}:8000", number / 250, number % 250);
        let backend = url.parse().unwrap_or_else(|e| panic!("{e}"));
        let call = register(&tool, &Pattern::any(), &backend, None, &origin, Ownership::Unproven);
        call.unwrap_or_else(|e| panic!("{e}")).invoke(&mut connection).unwrap_or_else(|e| panic!("{e}"));
    }
    let time = (server.cpu_seconds() - before) / COUNT as f64 * 1e6;
    row("processor time of Redis for one registration", &format!("{time:.0} us"), "");
}

struct Site {
    name: String,
    server: Server,
    fleet: Fleet,
    companions: usize,
    tools: usize,
}

impl Site {
    fn measure(companions: usize, tools: usize, only_outages: bool) {
        let Some(mut server) = Server::start(&[]) else { return };
        server.fill(tools);
        let data = server.number("memory", "used_memory");
        let start = server.cpu_seconds();
        thread::sleep(QUIET);
        let before = server.cpu_seconds();
        let alone = (before - start) / QUIET.as_secs_f64();
        let sent = server.number("stats", "total_net_output_bytes");
        Fleet::start(1, tools, &server.url(), NO_RESYNC).loaded();
        let one = server.cpu_seconds() - before;
        let sent = server.number("stats", "total_net_output_bytes") - sent;
        let fleet = Fleet::start(companions, tools, &server.url(), NO_RESYNC);
        let loaded = fleet.loaded();
        let name = format!("{companions} x {tools}");
        let mut site = Self { name, server, fleet, companions, tools };
        let figure = format!("{}, {:.2} MB", milliseconds(one), sent / 1e6);
        site.row("one full comparison: processor time of Redis, sent", &figure);
        site.row("from the start of all to the last full table", &milliseconds(loaded.as_secs_f64()));
        if !only_outages {
            site.memory(data);
            site.idle(alone);
            // More would need more processors than two.
            for rate in [TIMED_PER_SECOND, 1_000, 10_000].into_iter().filter(|rate| companions as u32 * rate <= 100_000)
            {
                site.change_steadily(rate);
            }
        }
        let others = site.server.companions();
        // A proxy that keeps its connection when the others lose theirs.
        let onlooker = Fleet::start(1, tools, &site.server.url(), NO_RESYNC);
        onlooker.loaded();
        site.outage("connections lost", 7, Some(&onlooker), |server| server.disconnect(&others));
        drop(onlooker);
        site.outage("Redis restarted", 8, None, Server::restart);
        site.fail_over();
    }

    /// The same behind a Sentinel, which promotes a replica.
    fn fail_over(mut self) {
        let Some((replica, mut sentinel)) = self.server.replica().zip(Sentinel::start(&self.server)) else { return };
        self.fleet = Fleet::start(self.companions, self.tools, &sentinel.url(), NO_RESYNC);
        self.fleet.loaded();
        let _former = std::mem::replace(&mut self.server, replica);
        self.outage("replica promoted", 9, None, |replica| sentinel.fail_over_to(replica));
    }

    fn row(&self, what: &str, figure: &str) {
        row(&format!("{}: {what}", self.name), figure, "");
    }

    fn memory(&mut self, data: f64) {
        let (own, table) = self.fleet.memory_kib();
        self.row("memory of a companion, and of its table", &format!("{own} + {table} KiB"));
        let clients = self.server.number("memory", "mem_clients_normal") / self.companions as f64;
        let figure = format!("{:.1} MiB + {:.1} KiB", data / 1048576.0, clients / 1024.0);
        self.row("memory of Redis: data, and for each companion", &figure);
    }

    /// Redis without companions needs `alone` seconds per second.
    fn idle(&mut self, alone: f64) {
        let used = self.used(|_| thread::sleep(QUIET));
        let each = |seconds: f64| seconds / used.time / self.companions as f64 * 1e6;
        let figure = format!("{:.0} us, {:.0} us", each(used.redis - alone * used.time), each(used.companions));
        self.row("idle, each second per companion: Redis, companion", &figure);
    }

    /// What an action takes.
    fn used(&mut self, action: impl FnOnce(&mut Self)) -> Used {
        let start = |site: &mut Self| {
            let bytes = site.server.number("stats", "total_net_output_bytes");
            (site.server.cpu_seconds(), site.fleet.cpu_seconds(), bytes, Instant::now())
        };
        let before = start(self);
        action(self);
        let after = start(self);
        Used {
            redis: after.0 - before.0,
            companions: after.1 - before.1,
            bytes: after.2 - before.2,
            time: (after.3 - before.3).as_secs_f64(),
        }
    }

    fn change_steadily(&mut self, per_second: u32) {
        let mut delays = Vec::new();
        let mut changes = 0;
        let used = self.used(|site| {
            let stop = AtomicBool::new(false);
            let (timed, others) = (site.server.connect(), site.server.connect());
            thread::scope(|scope| {
                let others = scope.spawn(|| change(others, site.tools, per_second - TIMED_PER_SECOND, &stop));
                let samples = time_changes(&site.fleet, timed, Instant::now() + STEADY, &|| false);
                stop.store(true, Relaxed);
                changes = others.join().unwrap_or_else(|_| panic!("the changes ended")) + samples.len() as u64;
                delays = samples;
            });
        });
        let each = changes as f64 * self.companions as f64;
        let rate = format!("{per_second} changes/s");
        self.row(
            &format!("{rate}, processor time of Redis per change"),
            &format!("{:.0} us, {:.1} us per companion", used.redis / changes as f64 * 1e6, used.redis / each * 1e6),
        );
        self.row(&format!("{rate}, of each companion per change"), &format!("{:.1} us", used.companions / each * 1e6));
        self.row(
            &format!("{rate}, of this machine's processors"),
            &format!(
                "Redis {:.0} %, all companions {:.0} %",
                used.redis / used.time * 100.0,
                used.companions / used.time * 100.0
            ),
        );
        self.row(
            &format!("{rate}, sent by Redis"),
            &format!(
                "{:.0} bytes per change and companion, {:.0} KB/s",
                used.bytes / each,
                used.bytes / used.time / 1e3
            ),
        );
        let (writes, delays): (Vec<_>, Vec<_>) = delays.into_iter().unzip();
        self.row(&format!("{rate}, until all tables have it, p50, p99, max"), &spread(delays));
        self.row(&format!("{rate}, the write itself, p50, p99, max"), &spread(writes));
    }

    /// Makes all companions connect again, while a client of Redis goes on.
    fn outage(&mut self, what: &str, port: u16, onlooker: Option<&Fleet>, cause: impl FnOnce(&mut Server)) {
        let before = self.fleet.scans();
        cause(&mut self.server);
        let begun = Instant::now();
        let redis = self.server.cpu_seconds();
        let (probing, timing) = (self.server.connect(), self.server.connect());
        let mut first = self.server.connect();
        let stop = AtomicBool::new(false);
        let (probes, probed): (Sender<Duration>, Receiver<Duration>) = channel();
        let (mut followed, mut complete, mut pushed) = (Duration::ZERO, Duration::ZERO, Vec::new());
        let fleet = &self.fleet;
        thread::scope(|scope| {
            scope.spawn(|| probe(probing, &probes, &stop));
            let pushes = onlooker.map(|onlooker| {
                let (begun, stop) = (Instant::now(), &stop);
                scope.spawn(move || {
                    time_changes(onlooker, timing, begun + Duration::from_secs(120), &|| stop.load(Relaxed))
                })
            });
            // Written while no connection listens: only the full comparison finds it.
            let key = tool(1);
            set(&mut first, &key, port);
            let change = scope.spawn(move || {
                fleet.all_have(&key, port);
                begun.elapsed()
            });
            while !fleet.has_reconnected_since(&before) && begun.elapsed() < Duration::from_secs(120) {
                thread::sleep(Duration::from_millis(2));
            }
            complete = begun.elapsed();
            stop.store(true, Relaxed);
            followed = change.join().unwrap_or_default();
            pushed = pushes.and_then(|pushes| pushes.join().ok()).unwrap_or_default();
        });
        let busy = self.server.cpu_seconds() - redis;
        drop(probes);
        self.row(
            &format!("{what}: all in step after, Redis busy for"),
            &format!("{}, {}", milliseconds(complete.as_secs_f64()), milliseconds(busy)),
        );
        self.row(&format!("{what}: a change is in all tables after"), &milliseconds(followed.as_secs_f64()));
        self.row(&format!("{what}: a command meanwhile, p50, p99, max"), &spread(probed.into_iter().collect()));
        if !pushed.is_empty() {
            let delays = pushed.into_iter().map(|(_, delay)| delay).collect();
            self.row(&format!("{what}: a push meanwhile, p50, p99, max"), &spread(delays));
        }
    }
}

/// What something took: processor time of Redis and of all companions, bytes that Redis sent, and time. In seconds.
struct Used {
    redis: f64,
    companions: f64,
    bytes: f64,
    time: f64,
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let figure = |percent| at(percent).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    format!("{:.1} ms, {:.1} ms, {:.1} ms", figure(50), figure(99), figure(100))
}

fn tool(number: usize) -> RouteKey {
    RouteKey::try_new(Kind::Tool, format!("tool-{number}").as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

fn set(connection: &mut redis::Connection, key: &RouteKey, port: u16) {
    let url = format!("http://10.9.9.9:{port}");
    redis::cmd("HSET").arg(key_of(key)).arg(".*").arg(url).exec(connection).unwrap_or_else(|e| panic!("{e}"));
}

/// Calls `act` at a constant rate with the number of the call, until it returns false.
fn at_rate(per_second: u32, mut act: impl FnMut(u32) -> bool) {
    let begun = Instant::now();
    let interval = Duration::from_secs(1) / per_second;
    (0..).find(|number| {
        thread::sleep((begun + interval * *number).saturating_duration_since(Instant::now()));
        !act(*number)
    });
}

/// Changes one tool until the deadline; returns how long each write took, and how long until all tables had it.
fn time_changes(
    fleet: &Fleet,
    mut connection: redis::Connection,
    deadline: Instant,
    stop: &dyn Fn() -> bool,
) -> Vec<(Duration, Duration)> {
    let key = tool(0);
    let mut samples = Vec::new();
    at_rate(TIMED_PER_SECOND, |number| {
        let port = 1 + (number % 1000) as u16;
        let start = Instant::now();
        set(&mut connection, &key, port);
        let written = start.elapsed();
        fleet.all_have(&key, port);
        samples.push((written, start.elapsed()));
        Instant::now() < deadline && !stop()
    });
    samples
}

/// Changes other tools, several in one pipeline if it falls behind, until stopped; returns how many.
fn change(mut connection: redis::Connection, tools: usize, per_second: u32, stop: &AtomicBool) -> u64 {
    let begun = Instant::now();
    let mut done = 0;
    while per_second > 0 && !stop.load(Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        let mut pipe = redis::pipe();
        for number in done..due {
            let at = 2 + number as usize * 7919 % (tools - 2);
            pipe.hset(key_of(&tool(at)), ".*", format!("http://10.9.9.9:{}", 1 + number % 1000)).ignore();
        }
        if done < due {
            pipe.exec(&mut connection).unwrap_or_else(|e| panic!("{e}"));
        }
        done = due;
        thread::sleep(Duration::from_millis(1));
    }
    done
}

/// Writes what no companion follows, at most at a constant rate, until stopped; sends how long each write took.
fn probe(mut connection: redis::Connection, times: &Sender<Duration>, stop: &AtomicBool) {
    for number in 0.. {
        let start = Instant::now();
        redis::cmd("SET").arg("probe").arg(number).exec(&mut connection).unwrap_or_else(|e| panic!("{e}"));
        let _ = times.send(start.elapsed());
        if stop.load(Relaxed) {
            return;
        }
        thread::sleep(PROBE_INTERVAL.saturating_sub(start.elapsed()));
    }
}
