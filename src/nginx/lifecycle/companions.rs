//! The companions of this process: one thread per table, which keeps the table in step with its source.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nginx_sys::NGX_LOG_ALERT;
use parking_lot::Mutex;

use super::journal::{JOURNAL_LINES, drain};
use crate::nginx::conf::main::MainConf;
use crate::nginx::ffi::cycle::Cycle;
use crate::nginx::ffi::log;
use crate::nginx::ffi::process::{is_exiting, with_signals_blocked};
use crate::nginx::ffi::timer::Task;
use crate::sync::{self, Journal, JournalReader, Level, WriterLock};

/// Delay before a companion that panicked restarts.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long an exiting worker waits for its companions. The master kills the worker after 1.55 s.
const JOIN_TIMEOUT: Duration = Duration::from_millis(500);

/// The writer locks of all tables ever configured, by name: created in the master, inherited by all workers, never closed.
static WRITER_LOCKS: Mutex<Vec<(String, Arc<WriterLock>)>> = Mutex::new(Vec::new());
/// The companions of this process.
static RUNNING: Mutex<Vec<Companion>> = Mutex::new(Vec::new());

struct Companion {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    journal: JournalReader,
}

/// Copies the companions' log lines to nginx's log.
pub(super) struct DrainJournals;

impl Task for DrainJournals {
    const EVERY: usize = 100;

    fn run() {
        RUNNING.lock().iter().for_each(|companion| drain(&companion.journal, log::write_to_cycle));
    }
}

/// Whether this process has companions.
pub(super) fn are_running() -> bool {
    !RUNNING.lock().is_empty()
}

/// Starts a companion for each table. `generation` numbers the configuration.
pub(super) fn start_all(main: &MainConf, cycle: Cycle<'_>, generation: u64) {
    for table in main.tables() {
        let (Some(&shared_table), Some(lock)) = (table.table.get(), writer_lock_of(&table.name)) else { continue };
        let mut settings = table.settings.clone();
        settings.admission.own_sockets = cycle.listen_addresses();
        settings.is_new_source = table.is_new_source.get();
        let (journal, reader) = Journal::new(JOURNAL_LINES);
        let stop = Arc::new(AtomicBool::new(false));
        let stop_flag = Arc::clone(&stop);
        if let Err(error) = lock.announce(generation) {
            log::write_to_cycle(
                NGX_LOG_ALERT,
                &format!(
                    "urlproxy: cannot announce the new companion; the old one may keep updating routes, table={} error=\"{error}\"",
                    table.name
                ),
            );
        }
        let thread = with_signals_blocked(|| {
            let name = format!("urlproxy {}", table.name);
            std::thread::Builder::new().name(name).spawn(move || {
                let stop = || stop_flag.load(Relaxed) || is_exiting() || lock.is_superseded(generation);
                while !stop() {
                    let run = || sync::run(shared_table, &settings, &lock, &journal, &stop);
                    if catch_unwind(AssertUnwindSafe(run)).is_err() {
                        journal.log(Level::Error, "companion panicked; restarting it in 1 s");
                        std::thread::sleep(RESTART_DELAY);
                    }
                }
            })
        });
        match thread {
            Ok(thread) => RUNNING.lock().push(Companion { stop, thread, journal: reader }),
            Err(error) => log::write_to_cycle(
                NGX_LOG_ALERT,
                &format!(
                    "urlproxy: cannot start the companion; routes are not updated, table={} error=\"{error}\"",
                    table.name
                ),
            ),
        }
    }
}

/// Stops all companions and waits up to [`JOIN_TIMEOUT`] for them.
pub(super) fn stop_all() {
    let companions = std::mem::take(&mut *RUNNING.lock());
    companions.iter().for_each(|c| c.stop.store(true, Relaxed));
    let deadline = Instant::now() + JOIN_TIMEOUT;
    for companion in companions {
        while !companion.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        drain(&companion.journal, log::write_to_cycle);
    }
}

/// Creates the lock of a table in the master, unless an earlier configuration created it.
pub(super) fn create_writer_lock(name: &str) -> std::io::Result<()> {
    if writer_lock_of(name).is_none() {
        let lock = Arc::new(WriterLock::create(&format!("urlproxy-{name}"))?);
        WRITER_LOCKS.lock().push((name.to_owned(), lock));
    }
    Ok(())
}

fn writer_lock_of(name: &str) -> Option<Arc<WriterLock>> {
    WRITER_LOCKS.lock().iter().find(|(known, _)| known == name).map(|(_, lock)| Arc::clone(lock))
}
