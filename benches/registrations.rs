//! What proxylistener takes: registrations per second, and how long one waits while thousands of clients are idle. Run by
//! `make bench`.
//!
//! The real program, a real Redis, and an identd in this process that knows everybody; each registration is a client's own
//! connection, one to the identd, and one to the address that the tool wants; where a server listens, the identd is asked once
//! more. Each tool has a port of its own. Not a test: nothing here fails but what cannot be measured.

#[path = "common/process.rs"]
mod process;
#[path = "common/store.rs"]
mod store;

use std::cell::Cell;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use urlproxy::daemon::raise_file_limit;

use process::{Process, row};
use store::Store;

const REGISTRATIONS: u32 = 30_000;
const AT_ONCE: u32 = 64;
const IDLE: u32 = 10_000;
/// proxylistener's limit is 64.
const IDLE_PER_HOST: u32 = 50;
const TIMED: u32 = 2_000;
const PER_SECOND: u32 = 200;
/// As many as the grid has. The identd takes a port's remainder for the tool's number.
const TOOLS: u16 = 3000;
const FIRST_PORT: u16 = 4 * TOOLS;

fn main() {
    let Some(store) = Store::filled(0) else { return };
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap_or_else(|e| panic!("{e}"));
    LocalSet::new().block_on(&runtime, measure(&store));
}

async fn measure(store: &Store) {
    let identd = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap_or_else(|e| panic!("{e}"));
    let ident_port = identd.local_addr().unwrap_or_else(|e| panic!("{e}")).port();
    tokio::task::spawn_local(tell_users(identd));
    let listener = Listener::start(&store.url(), ident_port);

    let rate = rate_of(REGISTRATIONS, listener.address, "register").await;
    row(
        &format!("registrations, {AT_ONCE} clients at once, nothing listens yet"),
        &format!("{rate:.0}/s"),
        ">= 3000/s",
    );
    let servers: Vec<_> = (FIRST_PORT..FIRST_PORT + TOOLS)
        .map(|port| {
            std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap_or_else(|e| panic!("{port}: {e}"))
        })
        .collect();
    let rate = rate_of(REGISTRATIONS, listener.address, "register").await;
    row("the same, the tools' servers listen", &format!("{rate:.0}/s"), ">= 3000/s");
    let rate = rate_of(TOOLS.into(), listener.address, "renew").await;
    row(&format!("renewals of {TOOLS} routes that are missing"), &format!("{:.2} s", f64::from(TOOLS) / rate), "");
    drop(servers);

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
    let what = format!("a registration at {PER_SECOND}/s, p50 and p99, nobody else");
    row(&what, &format!("{:.1} {:.1} ms", alone.0, alone.1), "");
    let what = format!("the same beside {IDLE} idle clients");
    row(&what, &format!("{:.1} {:.1} ms", beside.0, beside.1), "");
    row("p99 beside idle clients / p99 without", &format!("{:.2}", beside.1 / alone.1), "");
    row("idle clients that were closed", &gone.to_string(), "0");
    row("memory of an idle client", &format!("{:.1} KiB", memory as f64 / f64::from(IDLE)), "");
    row("memory of proxylistener with all of them", &format!("{} MiB", listener.process.memory_kib() / 1024), "");
}

/// How many commands are carried out in a second.
async fn rate_of(commands: u32, address: SocketAddr, command: &'static str) -> f64 {
    let begun = Instant::now();
    let next = Rc::new(Cell::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let next = Rc::clone(&next);
        clients.spawn_local(async move {
            while next.get() < commands {
                let number = next.replace(next.get() + 1);
                ask(command, address, good_host(number), number).await;
            }
        });
    }
    clients.join_all().await;
    f64::from(commands) / begun.elapsed().as_secs_f64()
}

/// How long each of some registrations takes, begun at a steady rate, in milliseconds.
async fn timed(address: SocketAddr) -> Vec<f64> {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..TIMED {
        let due = begun + Duration::from_secs(1) / PER_SECOND * number;
        tokio::time::sleep_until(due.into()).await;
        clients.spawn_local(async move {
            let begun = Instant::now();
            ask("register", address, good_host(number), number).await;
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

async fn connect(address: SocketAddr, host: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap_or_else(|e| panic!("{e}"));
    // As the system does for connections, so that ports are given by the pair of addresses.
    socket.set_reuseaddr(true).unwrap_or_else(|e| panic!("{e}"));
    socket.bind(SocketAddr::from((host, 0))).unwrap_or_else(|e| panic!("{e}"));
    socket.connect(address).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn ask(command: &str, address: SocketAddr, host: Ipv4Addr, number: u32) {
    let mut stream = connect(address, host).await;
    let port = FIRST_PORT + stream.local_addr().unwrap_or_else(|e| panic!("{e}")).port() % TOOLS;
    let pattern =
        if command == "renew" { format!("/h{}-{port}", host.octets()[3]) } else { format!("/{}", number % 8) };
    let command = format!("{command}\n{pattern}\nhttp://{host}:{port}\n");
    stream.write_all(command.as_bytes()).await.unwrap_or_else(|e| panic!("{e}"));
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(reply, "ok", "{command:?}");
}

fn is_open(client: &TcpStream) -> bool {
    client.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

async fn tell_users(identd: TcpListener) {
    loop {
        let (mut stream, _) = identd.accept().await.unwrap_or_else(|e| panic!("{e}"));
        tokio::task::spawn_local(async move {
            let mut query = [0; 64];
            let mut len = 0;
            while !query[..len].contains(&b'\n') {
                match stream.read(&mut query[len..]).await {
                    Ok(read @ 1..) => len += read,
                    _ => return,
                }
            }
            let ports = String::from_utf8_lossy(&query[..len]);
            // Of clients as of servers.
            let port = ports.split_once(' ').and_then(|(port, _)| port.parse::<u16>().ok()).unwrap_or(0);
            let reply = format!("{} : USERID : UNIX : tools.tool-{}\r\n", ports.trim_end(), port % TOOLS);
            let _ = stream.write_all(reply.as_bytes()).await;
        });
    }
}

struct Listener {
    process: Process,
    address: SocketAddr,
}

impl Listener {
    fn start(redis: &str, ident_port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxylistener"));
        command.args(["--listen", "127.0.0.1:0", "--project", "tools", "--redis", redis]);
        command.args(["--ident-port", &ident_port.to_string(), "--max-connections", "20000", "--idle-timeout", "10m"]);
        command.args(["--audit-interval", "off"]);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{e}"));
        let mut log = BufReader::new(process.stderr.take().unwrap_or_else(|| panic!("a pipe"))).lines();
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening address=")?;
            rest.split(' ').next()?.parse().ok()
        });
        // A line for each registration, as in service.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            process: Process::of(process),
            address: address.unwrap_or_else(|| panic!("proxylistener does not listen")),
        }
    }
}
