//! The first load of fresh tables, in the master, before anything is served from them: all side by side, and no longer than
//! nginx is to run.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::journal::{JOURNAL_LINES, drain};
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::cycle::Cycle;
use crate::nginx::ffi::process::{is_ending, with_signals_blocked};
use crate::sync::{self, Journal};

/// How often the master looks whether it is to end.
const STEP: Duration = Duration::from_millis(5);

/// Loads these tables; each is waited for as long as its `wait_for_routes` says, or until a signal ends nginx.
pub(super) fn load(tables: &[&TableConf], cycle: Cycle<'_>, say: impl Fn(u32, &str)) {
    if tables.is_empty() {
        return;
    }
    let begun = Instant::now();
    let is_over = AtomicBool::new(false);
    let stop = || is_over.load(Relaxed);
    let (own_sockets, owner) = (cycle.listening(), cycle.workers_user());
    let (journals, readers): (Vec<_>, Vec<_>) = tables.iter().map(|_| Journal::new(JOURNAL_LINES)).unzip();
    std::thread::scope(|scope| {
        let start = |(table, journal): (&&TableConf, _)| {
            let mut settings = table.settings.clone();
            settings.admission.own_sockets.clone_from(&own_sockets);
            if let Some(snapshot) = &mut settings.snapshot {
                snapshot.owners.extend(owner);
            }
            let (memory, deadline) = (*table.table.get()?, begun + table.wait_for_routes);
            let load = move || sync::load_until(memory, &settings, deadline, journal, &stop);
            Some(std::thread::Builder::new().name("urlproxy-load".into()).spawn_scoped(scope, load))
        };
        // The master's signals are the master's: its own thread waits for them.
        let threads: Vec<_> = with_signals_blocked(|| tables.iter().zip(&journals).map(start).collect());
        for (thread, table) in threads.into_iter().zip(tables) {
            let failed = match thread {
                None => None,
                Some(Err(error)) => Some(error.to_string()),
                Some(Ok(thread)) => {
                    while !thread.is_finished() {
                        std::thread::sleep(STEP);
                        is_over.fetch_or(is_ending(), Relaxed);
                    }
                    thread.join().err().map(|_| "panic".to_owned())
                }
            };
            if let Some(error) = failed {
                say(nginx_sys::NGX_LOG_ALERT, &format!("urlproxy: {error} while loading routes of {}", table.name));
            }
        }
    });
    readers.iter().for_each(|reader| drain(reader, &say));
}
