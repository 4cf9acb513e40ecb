//! The initial load of new tables, in the master, before nginx serves requests from them. Tables load in parallel; a signal
//! that ends nginx ends the load.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::journal::{JOURNAL_LINES, drain};
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::cycle::Cycle;
use crate::nginx::ffi::process::{is_shutting_down, with_signals_blocked};
use crate::sync::{self, Journal};

/// How often the master checks for a shutdown.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Loads the tables and waits for each up to its `wait_for_routes`, or until a signal ends nginx.
pub(super) fn load(tables: &[&TableConf], cycle: Cycle<'_>, log: impl Fn(u32, &str)) {
    if tables.is_empty() {
        return;
    }
    let start_time = Instant::now();
    let is_stopped = AtomicBool::new(false);
    let stop = || is_stopped.load(Relaxed);
    let (own_sockets, owner) = (cycle.listen_addresses(), cycle.worker_uid());
    let (journals, readers): (Vec<_>, Vec<_>) = tables.iter().map(|_| Journal::new(JOURNAL_LINES)).unzip();
    std::thread::scope(|scope| {
        let start = |(table, journal): (&&TableConf, _)| {
            let mut settings = table.settings.clone();
            settings.admission.own_sockets.clone_from(&own_sockets);
            if let Some(snapshot) = &mut settings.snapshot {
                snapshot.owners.extend(owner);
            }
            let (shared_table, deadline) = (*table.table.get()?, start_time + table.wait_for_routes);
            let load = move || sync::load_until(shared_table, &settings, deadline, journal, &stop);
            Some(std::thread::Builder::new().name("urlproxy-load".into()).spawn_scoped(scope, load))
        };
        // Signals must reach the master's own thread.
        let threads: Vec<_> = with_signals_blocked(|| tables.iter().zip(&journals).map(start).collect());
        for (thread, table) in threads.into_iter().zip(tables) {
            let failed = match thread {
                None => None,
                Some(Err(error)) => Some(error.to_string()),
                Some(Ok(thread)) => {
                    while !thread.is_finished() {
                        std::thread::sleep(POLL_INTERVAL);
                        is_stopped.fetch_or(is_shutting_down(), Relaxed);
                    }
                    thread.join().err().map(|_| "panic".to_owned())
                }
            };
            if let Some(error) = failed {
                log(
                    nginx_sys::NGX_LOG_ALERT,
                    &format!(
                        "urlproxy: initial load failed; the companion loads the routes later, table={} error=\"{error}\"",
                        table.name
                    ),
                );
            }
        }
    });
    readers.iter().for_each(|reader| drain(reader, &log));
}
