//! Measures proxylistener: registrations per second, their latency beside thousands of idle clients, renewals, and an audit of
//! thousands of tools over a slow link to Redis. Run by `make bench`.
//!
//! Uses the real program, a real Redis, and an identd in this process that names a user for every port. Each registration takes a
//! connection of the client, one to the identd, and one to the server's address. Not a test: it fails only if it cannot measure.
//! `URLPROXY_BENCH_PROXYLISTENER` names another program to measure.

#[path = "common/child.rs"]
mod child;
#[path = "common/grid.rs"]
mod grid;
#[path = "common/process.rs"]
mod process;
#[path = "common/report.rs"]
mod report;
#[path = "common/store.rs"]
mod store;

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use urlproxy::daemon::raise_fd_limit;

use grid::{Listener, TOOLS, ask, connect, host_of, start_identd, start_relay, start_servers, tool_of_port};
use report::row;
use store::Store;

const REGISTRATIONS: u32 = 30_000;
const AT_ONCE: u32 = 64;
const IDLE: u32 = 10_000;
/// proxylistener's limit is 64.
const IDLE_PER_HOST: u32 = 50;
const TIMED: u32 = 2_000;
const PER_SECOND: u32 = 200;
/// Processor time has a resolution of 10 ms, so several rounds are timed.
const ROUNDS: u32 = 5;
/// Round trip to Redis.
const FAR: Duration = Duration::from_millis(20);

fn main() {
    let (Some(store), Some(mut many)) = (Store::filled(0), Store::filled(0)) else { return };
    raise_fd_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap_or_else(|e| panic!("{e}"));
    LocalSet::new().block_on(&runtime, async {
        let ident_port = start_identd().await;
        measure_registrations(&store, ident_port).await;
        let port = start_servers().await;
        measure_audit(&mut many, ident_port, port).await;
        measure_renewals(&store, ident_port, port).await;
    });
}

/// Seconds to complete `one` for each number below `count`.
async fn timed_all<F: Future<Output = ()> + 'static>(count: u32, one: impl Fn(u32) -> F + Clone + 'static) -> f64 {
    let begun = Instant::now();
    let next = Rc::new(Cell::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, one) = (Rc::clone(&next), one.clone());
        clients.spawn_local(async move {
            while next.get() < count {
                one(next.replace(next.get() + 1)).await;
            }
        });
    }
    clients.join_all().await;
    begun.elapsed().as_secs_f64()
}

/// Audits many registered tools over a slow link to Redis.
async fn measure_audit(store: &mut Store, ident_port: u16, port: u16) {
    for tool in 0..TOOLS {
        let host = host_of(tool);
        let origin = format!(r#"{{"source":"proxylistener","owner":"tools.tool-{tool}","host":"{host}","since":1}}"#);
        let mut pipeline = redis::pipe();
        pipeline.hset(format!("prefix:tool-{tool}"), ".*", format!("http://{host}:{port}"));
        pipeline.hset(format!("origin:tool-{tool}"), ".*", origin);
        pipeline.hset("addresses", format!("{host}:{port}"), format!("tool-{tool}"));
        pipeline.exec(&mut store.connection).unwrap_or_else(|e| panic!("{e}"));
    }
    let url = start_relay(store.directory().join("redis.sock"), FAR).await;
    let listener = Listener::start(&url, ident_port, &["--audit-interval", "1h"]);
    let begun = Instant::now();
    while listener.sample("proxylistener_audit_rounds_total").await < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let passed = begun.elapsed().as_secs_f64();
    let own = listener.sample("proxylistener_audited_routes_total{finding=\"own\"}").await;
    row(&format!("audit of {TOOLS} tools, {FAR:?} to Redis and back"), &format!("{passed:.1} s"), "<= 10 s");
    row("of them found to be their tools' own", &format!("{own:.0}"), &TOOLS.to_string());
}

/// Each tool renews the route to its server, in several rounds.
async fn measure_renewals(store: &Store, ident_port: u16, port: u16) {
    let listener = Listener::start(&store.url(), ident_port, &["--audit-interval", "off"]);
    let address = listener.address;
    let refused = Rc::new(Cell::new(0));
    let counted = Rc::clone(&refused);
    let renew = move |tool| {
        let (host, refused) = (host_of(tool), Rc::clone(&counted));
        async move {
            let reply = ask(connect(address, host).await, format!("renew\n.*\nhttp://{host}:{port}\n")).await;
            refused.set(refused.get() + u32::from(reply != "ok"));
        }
    };
    // The routes exist before the timed rounds.
    timed_all(TOOLS, renew.clone()).await;
    if refused.get() > 0 {
        row(&format!("renewals of {TOOLS} tools that were refused"), &refused.get().to_string(), "0");
        return;
    }
    let (mut passed, cpu_before) = (0.0, listener.process.cpu_seconds());
    for _ in 0..ROUNDS {
        passed += timed_all(TOOLS, renew.clone()).await;
    }
    let cpu = (listener.process.cpu_seconds() - cpu_before) / f64::from(ROUNDS);
    row(&format!("renewals, {AT_ONCE} clients at once"), &format!("{:.0}/s", f64::from(ROUNDS * TOOLS) / passed), "");
    row(&format!("processor time of {TOOLS} renewals"), &format!("{cpu:.2} s"), "<= 3 s");
    row("of a processor, at one renewal of each tool a minute", &format!("{:.1} %", cpu / 0.6), "<= 5 %");
}

async fn measure_registrations(store: &Store, ident_port: u16) {
    let args = ["--audit-interval", "off", "--max-connections", "20000", "--idle-timeout", "10m"];
    let listener = Listener::start(&store.url(), ident_port, &args);
    let address = listener.address;
    let passed = timed_all(REGISTRATIONS, move |number| register(address, good_host(number), number)).await;
    let rate = f64::from(REGISTRATIONS) / passed;
    row(&format!("registrations, {AT_ONCE} clients at once"), &format!("{rate:.0}/s"), ">= 8900/s");

    let alone = percentiles(timed(listener.address).await);
    let memory_before = listener.process.memory_kib();
    let mut idle = Vec::new();
    for number in 0..IDLE {
        let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number / IDLE_PER_HOST);
        idle.push(connect(listener.address, host).await);
    }
    let memory = listener.process.memory_kib() - memory_before;
    let beside = percentiles(timed(listener.address).await);
    let gone = idle.iter().filter(|client| !is_open(client)).count();
    let what = format!("a registration at {PER_SECOND}/s, p50 and p99, no other clients");
    row(&what, &format!("{:.1} {:.1} ms", alone.0, alone.1), "");
    let what = format!("the same beside {IDLE} idle clients");
    row(&what, &format!("{:.1} {:.1} ms", beside.0, beside.1), "");
    row("p99 beside idle clients / p99 without", &format!("{:.2}", beside.1 / alone.1), "");
    row("idle clients that were closed", &gone.to_string(), "0");
    row("memory of an idle client", &format!("{:.1} KiB", memory as f64 / f64::from(IDLE)), "");
    row("memory of proxylistener with all of them", &format!("{} MiB", listener.process.memory_kib() / 1024), "");
}

/// Milliseconds of each registration, at a steady rate.
async fn timed(address: SocketAddr) -> Vec<f64> {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..TIMED {
        let due = begun + Duration::from_secs(1) / PER_SECOND * number;
        tokio::time::sleep_until(due.into()).await;
        clients.spawn_local(async move {
            let begun = Instant::now();
            register(address, good_host(number), number).await;
            begun.elapsed().as_secs_f64() * 1e3
        });
    }
    clients.join_all().await
}

fn percentiles(mut taken: Vec<f64>) -> (f64, f64) {
    taken.sort_unstable_by(f64::total_cmp);
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}

fn good_host(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (number % 32) as u8)
}

/// Each tool registers its own port, where no server listens yet.
async fn register(address: SocketAddr, host: Ipv4Addr, number: u32) {
    let client = connect(address, host).await;
    let port = client.local_addr().map_or(0, |local| local.port());
    let url = format!("http://{host}:{}", 10_000 + tool_of_port(port));
    assert_eq!(ask(client, format!("register\n/{}\n{url}\n", number % 8)).await, "ok");
}

fn is_open(client: &TcpStream) -> bool {
    client.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
