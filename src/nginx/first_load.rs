//! The first load of fresh tables, in the master, before anything is served from them: all side by side, and no longer than
//! nginx is to run.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nginx_sys::{
    SIGINT, SIGQUIT, SIGTERM, ngx_core_conf_t, ngx_core_module, ngx_cycle_t, ngx_quit, ngx_terminate, sigismember,
    sigpending, sigset_t,
};

use super::process::{JOURNAL_LINES, drain, listening, with_signals_blocked};
use super::table_conf::TableConf;
use crate::sync::{self, Journal};

/// How often the master looks whether it is to end.
const STEP: Duration = Duration::from_millis(5);

/// Loads these tables; each is waited for as long as its `wait_for_routes` says, or until a signal ends nginx.
pub(super) fn load(tables: &[&TableConf], cycle: &ngx_cycle_t, say: impl Fn(u32, &str)) {
    if tables.is_empty() {
        return;
    }
    let begun = Instant::now();
    let is_over = AtomicBool::new(false);
    let stop = || is_over.load(Relaxed);
    let (own_sockets, owner) = (listening(cycle), workers_user(cycle));
    let (journals, readers): (Vec<_>, Vec<_>) = tables.iter().map(|_| Journal::new(JOURNAL_LINES)).unzip();
    std::thread::scope(|scope| {
        let start = |(table, journal): (&&TableConf, _)| {
            let mut settings = table.settings.clone();
            settings.admission.own_sockets.clone_from(&own_sockets);
            if let Some(snapshot) = &mut settings.snapshot {
                snapshot.owners.extend(owner);
            }
            let (memory, deadline) = (*table.table.get()?, begun + table.wait_for_routes);
            let load = move || sync::load_unless(memory, &settings, deadline, journal, &stop);
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

/// Whether nginx is to end. Its handlers set the flags when a single process loads a new configuration. The master blocks
/// signals while it does, and so does a new binary's; at the first start they end the process by themselves.
fn is_ending() -> bool {
    let flags = [&raw mut ngx_quit, &raw mut ngx_terminate];
    // SAFETY: aligned words of nginx's that are there as long as the process.
    let is_set = |flag: *mut _| unsafe { AtomicI32::from_ptr(flag) }.load(Relaxed) != 0;
    flags.into_iter().any(is_set) || is_pending()
}

/// Whether a signal that ends nginx waits to be delivered.
fn is_pending() -> bool {
    let mut pending = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a set of our own.
    if unsafe { sigpending(pending.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call before has filled it.
    let is_member = |signal| unsafe { sigismember(pending.as_ptr(), signal) } == 1;
    [SIGTERM, SIGQUIT, SIGINT].into_iter().any(|signal| is_member(signal as i32))
}

/// The user that workers run as, by its number: who writes snapshots. Only root's master can give workers another user.
fn workers_user(cycle: &ngx_cycle_t) -> Option<u32> {
    let is_root = rustix::process::geteuid().is_root();
    let module = &raw const ngx_core_module;
    // SAFETY: nginx has given its modules their numbers before this.
    let index = unsafe { (*module).index };
    // SAFETY: the cycle has a configuration of each module under its number.
    let slot = unsafe { cycle.conf_ctx.add(index) };
    // SAFETY: as above.
    let conf = unsafe { *slot }.cast::<ngx_core_conf_t>();
    // SAFETY: the core module's configuration is of this type, and lives as long as the cycle.
    let conf = unsafe { conf.as_ref() };
    conf.map(|conf| conf.user).filter(|_| is_root)
}
