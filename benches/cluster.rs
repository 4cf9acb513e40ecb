//! Speed of kube2proxy: 10,000 Services into an empty Redis, and one change of a Service. Run by `make bench`.
//!
//! The real program, or the one that `URLPROXY_BENCH_KUBE2PROXY` names, a real Redis, and a scripted API server in this process.
//! Not a test: it fails only if something cannot be measured.

#[path = "../tests/kube/api_server/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests need more of it")]
mod api_server;
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

use std::time::{Duration, Instant};

use api_server::{ApiServer, Request, web_service};
use process::Process;
use report::row;
use store::Store;

const SERVICES: usize = 10_000;
/// The page size of kube2proxy.
const PAGE: usize = 500;
/// Longer than each measurement.
const RESYNC: &str = "20s";
const CHANGES: usize = 1_000;
const PER_SECOND: u32 = 100;

fn main() {
    let Some(mut store) = Store::filled(0) else { return };
    let api = ApiServer::start();
    for number in 0..SERVICES {
        api.apply(&name(number), &name(number), web_service(&address(number), 8000));
    }
    let config = store.directory().join("kube2proxy.yaml");
    let text = format!("kubernetes:\n  master: {}\n  token: secret\n", api.url());
    std::fs::write(&config, text).unwrap_or_else(|e| panic!("{e}"));
    let begun = Instant::now();
    let config = config.display().to_string();
    let program = std::env::var("URLPROXY_BENCH_KUBE2PROXY");
    let program = program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_kube2proxy"));
    let sent_before = store.received();
    let args = ["--config", &config, "--redis", &store.url(), "--resync-interval", RESYNC];
    let kube2proxy = Process::start(program, &args);
    wait(|| api.count(Request::NextPage) == SERVICES / PAGE - 1);
    let (listed, asked) = (Instant::now(), begun.elapsed());
    wait(|| redis::cmd("SCARD").arg("k8s_services").query(&mut store.connection) == Ok(SERVICES));
    let cold = listed.elapsed();
    let figure = |took: Duration| format!("{:.2} s", took.as_secs_f64());
    row(&format!("{SERVICES} Services, from its start to the last page of the list"), &figure(asked), "");
    row("from the last page of the list until Redis has all of them", &figure(cold), "<= 0.65 s");

    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
    row("sent to Redis for that", &mib(store.received() - sent_before), "");

    let mut taken = change_steadily(&api, &mut store);
    taken.sort_unstable();
    for (percent, target) in [(50, ""), (99, "<= 0.8 ms")] {
        let at = (taken.len() * percent / 100).min(taken.len() - 1);
        let what = format!("a change in Redis, p{percent} of {CHANGES} at {PER_SECOND}/s");
        row(&what, &format!("{:.2} ms", taken[at].as_secs_f64() * 1e3), target);
    }
    let (bytes, took) = compared(&mut store);
    row("sent to Redis for one full comparison", &mib(bytes), "<= 10 MiB");
    row("time of Redis for it", &format!("{:.0} ms", took.as_secs_f64() * 1e3), "");
    let memory = kube2proxy.memory_kib();
    row("memory of kube2proxy with all of them", &format!("{:.1} MiB", memory as f64 / 1024.0), "");
    row("the same for each Service", &format!("{:.2} KiB", memory as f64 / SERVICES as f64), "");
}

fn name(number: usize) -> String {
    format!("t{number}")
}

fn address(number: usize) -> String {
    format!("10.96.{}.{}", number / 250, 1 + number % 250)
}

fn wait(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes sent by one full comparison, and Redis's CPU time for it, measured from quiet to quiet.
fn compared(store: &mut Store) -> (u64, Duration) {
    const QUIET: Duration = Duration::from_secs(2);
    // Heartbeats are far smaller.
    const BURST: u64 = 1 << 16;
    let mut quiet_until_burst = |is_burst: bool| {
        let begun = Instant::now();
        loop {
            let (before, worked) = (store.received(), store.worked());
            std::thread::sleep(QUIET);
            if (store.received() - before > BURST) == is_burst {
                return (before, worked);
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "no comparison");
        }
    };
    quiet_until_burst(false);
    let (before, worked) = quiet_until_burst(true);
    let (after, worked_after) = quiet_until_burst(false);
    (after - before, worked_after.saturating_sub(worked))
}

/// The time of each change.
fn change_steadily(api: &ApiServer, store: &mut Store) -> Vec<Duration> {
    wait(|| api.open_watches() >= 1);
    let begun = Instant::now();
    (0..CHANGES)
        .map(|change| {
            let due = begun + Duration::from_secs(1) / PER_SECOND * u32::try_from(change).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let number = change * 7919 % SERVICES;
            let port = u16::try_from(9000 + change % 1000).unwrap_or(9000);
            let start = Instant::now();
            api.apply(&name(number), &name(number), web_service(&address(number), port));
            let want = Ok(format!("http://{}:{port}", address(number)));
            let key = format!("prefix:{}", name(number));
            while redis::cmd("HGET").arg(&key).arg(".*").query(&mut store.connection) != want {
                assert!(start.elapsed() < Duration::from_secs(20), "a change is lost");
            }
            start.elapsed()
        })
        .collect()
}
