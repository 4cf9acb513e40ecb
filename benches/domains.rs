//! Benchmark of invisible-unicorn with 100,000 domains: import, start with an empty Redis, and the time from an API request until
//! every worker routes by it. Run by `make bench`.
//!
//! Uses the program, a Redis, and a companion as in nginx. Only fails if something cannot be measured.

#[path = "common/child.rs"]
mod child;
#[path = "common/process.rs"]
mod process;
#[path = "common/report.rs"]
mod report;
#[path = "common/store.rs"]
mod store;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use process::Process;
use report::row;
use rusqlite::{Connection, params};
use store::Store;
use urlproxy::route::{Kind, RouteKey};
use urlproxy::sync::{Journal, Settings, WriterLock, run};
use urlproxy::table::{Capacity, Lookup, OwnedTable, Scratch, Table};

const PROGRAM: &str = env!("CARGO_BIN_EXE_invisible-unicorn");
const DOMAINS: usize = 100_000;
/// The default limit.
const PER_PROJECT: usize = 1_000;
const CHANGES: usize = 1_500;
const PER_SECOND: u32 = 50;

fn main() {
    let Some(store) = Store::filled(0) else { return };
    let (database, old) = (store.directory().join("domains.db"), store.directory().join("data.db"));
    write_old(&old).unwrap_or_else(|e| panic!("{e}"));
    let database = database.display().to_string();
    let started = Instant::now();
    let mut import = Command::new(PROGRAM);
    import.args(["--database", &database, "import"]).arg(&old).stdout(Stdio::null());
    assert!(import.status().is_ok_and(|status| status.success()));
    row(&format!("import of {DOMAINS} domains from the old database"), &seconds(started.elapsed()), "");

    let owned = OwnedTable::new(Capacity::of_bytes(DOMAINS * 384 + (1 << 20)).unwrap_or_else(|e| panic!("{e}")));
    let table = owned.table();
    let settings = Settings::new(store.url().parse().unwrap_or_else(|e| panic!("{e}")));
    let lock = WriterLock::create("bench").unwrap_or_else(|e| panic!("{e}"));
    let (journal, _reader) = Journal::new(1000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| run(table, &settings, &lock, &journal, &|| stop.load(Relaxed)));
        let address = format!("127.0.0.1:{}", support::port::free_port());
        let started = Instant::now();
        let args = ["--database", &database, "--listen", &address, "--redis", &store.url()];
        let unicorn = Process::start(PROGRAM, &args);
        wait(|| table.header().live(Kind::Domain) == DOMAINS as u64);
        row("from its start with an empty Redis until all are routed", &seconds(started.elapsed()), "");
        let (mut answered, mut routed) = change_steadily(table, &address);
        stop.store(true, Relaxed);
        for (what, taken) in [("answered", &mut answered), ("routed", &mut routed)] {
            taken.sort_unstable();
            for (percent, target) in [(50, ""), (99, if what == "routed" { "<= 5 ms" } else { "" })] {
                let at = (taken.len() * percent / 100).min(taken.len() - 1);
                let what = format!("a POST {what}, p{percent} of {CHANGES} at {PER_SECOND}/s");
                row(&what, &format!("{:.2} ms", taken[at].as_secs_f64() * 1e3), target);
            }
        }
        let memory = format!("{:.1} MiB", unicorn.memory_kib() as f64 / 1024.0);
        row("memory of invisible-unicorn with all of them", &memory, "");
    });
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn domain(number: usize) -> String {
    format!("www.project-{number}.example.org")
}

/// Writes a database of the old API.
fn write_old(path: &Path) -> rusqlite::Result<()> {
    let mut old = Connection::open(path)?;
    old.execute_batch(
        "CREATE TABLE project(id INTEGER PRIMARY KEY, name VARCHAR(256) UNIQUE);
         CREATE TABLE route(id INTEGER PRIMARY KEY, domain VARCHAR(256) UNIQUE, project_id INTEGER);
         CREATE TABLE backend(id INTEGER PRIMARY KEY, url VARCHAR(256), route_id INTEGER);",
    )?;
    let transaction = old.transaction()?;
    for number in 0..DOMAINS {
        let (id, project) = (number as i64, (number / PER_PROJECT) as i64);
        transaction.execute("INSERT OR IGNORE INTO project VALUES (?, 'p' || ?)", params![project, project])?;
        transaction.execute("INSERT INTO route VALUES (?, ?, ?)", params![id, domain(number), project])?;
        let url = format!("http://10.{}.{}.1:{}", number >> 16, number >> 8 & 255, 1024 + number % 60_000);
        transaction.execute("INSERT INTO backend(url, route_id) VALUES (?, ?)", params![url, id])?;
    }
    transaction.commit()
}

fn wait(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(120), "timeout");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The times from before each change is sent until it is answered, and until it is routed.
fn change_steadily(table: Table<'_>, address: &str) -> (Vec<Duration>, Vec<Duration>) {
    let mut client = TcpStream::connect(address).unwrap_or_else(|e| panic!("{e}"));
    client.set_nodelay(true).unwrap_or_else(|e| panic!("{e}"));
    let mut answers = BufReader::new(client.try_clone().unwrap_or_else(|e| panic!("{e}")));
    let mut scratch = Scratch::default();
    let mut port_of = |key: &RouteKey| match table.lookup(key.as_bytes(), &mut scratch) {
        Lookup::Found(record) => record.routes().next().and_then(|r| r.first_backend()).map(|b| b.port),
        _ => None,
    };
    let started = Instant::now();
    let change = |number: u32| {
        let due = started + Duration::from_secs(1) / PER_SECOND * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = number as usize * 7919 % DOMAINS;
        let (name, port) = (domain(at), 1 + (number % 1000) as u16);
        let key = RouteKey::try_new(Kind::Domain, name.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        let body = format!(r#"{{"domain":"{name}","backends":["http://10.9.9.9:{port}"]}}"#);
        let request = format!(
            "POST /v1/p{}/mapping/{name} HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n{body}",
            at / PER_PROJECT,
            body.len()
        );
        let start = Instant::now();
        client.write_all(request.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        let (mut answered, mut routed) = (None, Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                read_ok(&mut answers);
                answered = Some(start.elapsed());
            });
            while port_of(&key) != Some(port) {
                std::thread::yield_now();
            }
            routed = start.elapsed();
        });
        (answered.unwrap_or_default(), routed)
    };
    (0..CHANGES as u32).map(change).unzip()
}

/// Reads one response, which must be "OK".
fn read_ok(answers: &mut impl BufRead) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(answers.read_line(&mut head).is_ok_and(|read| read > 0), "no answer");
    }
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = [0; 2];
    answers.read_exact(&mut body).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(&body, b"OK");
}
