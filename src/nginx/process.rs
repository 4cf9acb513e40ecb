//! The companion's place in nginx's processes: first load in the master, one thread in worker 0, a log between them.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nginx_sys::{
    NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER, SIG_SETMASK, SIGBUS, SIGFPE, SIGILL, SIGSEGV, ngx_add_timer,
    ngx_connection_t, ngx_cycle, ngx_cycle_t, ngx_event_t, ngx_exiting, ngx_int_t, ngx_listening_t, ngx_process,
    ngx_test_config, ngx_worker, sigdelset, sigfillset, sigprocmask, sigset_t,
};
use ngx::core::Status;
use ngx::http::HttpModuleMainConf;
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use super::first_load;
use super::guard::guarded;
use super::log;
use super::module::{MainConf, Module};
use super::table_conf::Origin;
use crate::sync::{self, Journal, JournalReader, Lease, Level};

/// Lines kept between two looks of the event loop.
pub(super) const JOURNAL_LINES: usize = 256;
/// How often the event loop looks, in milliseconds.
const DRAIN_EVERY: usize = 100;
/// How long a companion that panicked rests.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How long an exiting worker waits for its companion; the master kills after 1.55 s.
const JOIN_WITHIN: Duration = Duration::from_millis(500);

/// The leases of all tables there ever were, by name: made in the master, inherited by all workers, never closed.
static LEASES: Mutex<Vec<(String, Arc<Lease>)>> = Mutex::new(Vec::new());
/// How many configurations were put into force before this process was made.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// The companions of this process.
static RUNNING: Mutex<Vec<Companion>> = Mutex::new(Vec::new());

struct Companion {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    journal: JournalReader,
}

/// In the master, once the configuration is good and the sockets are open: first load of fresh tables.
pub(super) unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // Never an error: nginx would end the master of a running site over it.
    guarded(Status::NGX_OK.0, || {
        // SAFETY: nginx passes the cycle it is about to run.
        let cycle = unsafe { &*cycle };
        // SAFETY: written by nginx before this.
        let is_test = unsafe { ngx_test_config } != 0;
        // SAFETY: the cycle's log is the cycle's.
        let say = |level, text: &str| unsafe { log::write(cycle.log, level, text) };
        let Some(main) = Module::main_conf(cycle) else { return Status::NGX_OK.0 };
        main.check_connections(cycle.connection_n, |text| say(nginx_sys::NGX_LOG_WARN, text));
        if is_test {
            return Status::NGX_OK.0;
        }
        let (build, nginx) = (env!("URLPROXY_BUILD_ID"), env!("URLPROXY_NGINX_VERSION"));
        let version = env!("CARGO_PKG_VERSION");
        say(nginx_sys::NGX_LOG_NOTICE, &format!("urlproxy {version}, build {build} for nginx {nginx}"));
        // Only the single process reloads with its companion running, and it is about to unmap the old zones.
        let is_running = !RUNNING.lock().is_empty();
        GENERATION.fetch_add(1, Relaxed);
        stop_all();
        let mut fresh = Vec::new();
        for table in main.tables() {
            if let Err(error) = make_lease(&table.name) {
                say(nginx_sys::NGX_LOG_EMERG, &format!("{error} while making the writer lease of {}", table.name));
            }
            match table.origin.get() {
                Origin::Kept => {}
                Origin::Carried { tools } => {
                    say(
                        nginx_sys::NGX_LOG_NOTICE,
                        &format!("urlproxy: routes of {} carried over to another zone, tools={tools}", table.name),
                    );
                }
                Origin::Fresh => fresh.push(table),
            }
        }
        first_load::load(&fresh, cycle, say);
        if is_running {
            start_all(main, cycle);
        }
        Status::NGX_OK.0
    })
}

/// In each process: worker 0, or the single process, follows the sources.
pub(super) unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    guarded(Status::NGX_OK.0, || {
        // SAFETY: nginx writes this before it calls us.
        let process = unsafe { ngx_process } as u32;
        // SAFETY: as above.
        let worker = unsafe { ngx_worker };
        let is_first = process == NGX_PROCESS_SINGLE || process == NGX_PROCESS_WORKER && worker == 0;
        // SAFETY: nginx passes the cycle it runs.
        let cycle = unsafe { &*cycle };
        sync::forget_lookups();
        if let Some(main) = Module::main_conf(cycle) {
            spare_descriptors(main);
        }
        if let Some(main) = Module::main_conf(cycle).filter(|main| is_first && main.tables().next().is_some()) {
            start_all(main, cycle);
            start_timer(cycle);
        }
        Status::NGX_OK.0
    })
}

/// In each process, at its end.
pub(super) unsafe extern "C" fn exit_process(_: *mut ngx_cycle_t) {
    guarded((), stop_all);
}

/// Leaves half of this worker's file descriptors to requests: nginx gives up idle connections when it runs short of
/// `worker_connections`, but not of these.
fn spare_descriptors(main: &MainConf) {
    let pools = main.keepalives().count();
    let most = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    if let Some(most) = most.filter(|_| pools > 0) {
        main.keepalives().for_each(|keepalive| keepalive.lower_limit(most / 2 / pools));
    }
}

fn start_all(main: &'static MainConf, cycle: &ngx_cycle_t) {
    for table in main.tables() {
        let (Some(&memory), Some(lease)) = (table.table.get(), lease_of(&table.name)) else { continue };
        let mut settings = table.settings.clone();
        settings.admission.own_sockets = listening(cycle);
        settings.is_new_source = table.is_new_source.get();
        let (journal, reader) = Journal::new(JOURNAL_LINES);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let generation = GENERATION.load(Relaxed);
        if let Err(error) = lease.announce(generation) {
            log::cycle(nginx_sys::NGX_LOG_ALERT, &format!("{error} while announcing the companion of {}", table.name));
        }
        let thread = with_signals_blocked(|| {
            let name = format!("urlproxy {}", table.name);
            std::thread::Builder::new().name(name).spawn(move || {
                let stop = || asked.load(Relaxed) || is_exiting() || lease.is_superseded(generation);
                while !stop() {
                    let life = || sync::run(memory, &settings, &lease, &journal, &stop);
                    if catch_unwind(AssertUnwindSafe(life)).is_err() {
                        journal.log(Level::Error, "the companion panicked; it starts over");
                        std::thread::sleep(AFTER_PANIC);
                    }
                }
            })
        });
        match thread {
            Ok(thread) => RUNNING.lock().push(Companion { stop, thread, journal: reader }),
            Err(error) => {
                log::cycle(nginx_sys::NGX_LOG_ALERT, &format!("{error} while starting the companion of {}", table.name))
            }
        }
    }
}

/// Asks all companions to stop, and waits a little for them.
fn stop_all() {
    let companions = std::mem::take(&mut *RUNNING.lock());
    companions.iter().for_each(|c| c.stop.store(true, Relaxed));
    let deadline = Instant::now() + JOIN_WITHIN;
    for companion in companions {
        while !companion.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        drain(&companion.journal, log::cycle);
    }
}

/// Makes the lease of a table, in the master, unless an earlier configuration did.
fn make_lease(name: &str) -> std::io::Result<()> {
    if lease_of(name).is_none() {
        let lease = Arc::new(Lease::create(&format!("urlproxy-{name}"))?);
        LEASES.lock().push((name.to_owned(), lease));
    }
    Ok(())
}

fn lease_of(name: &str) -> Option<Arc<Lease>> {
    LEASES.lock().iter().find(|(known, _)| known == name).map(|(_, lease)| Arc::clone(lease))
}

/// Whether the worker drains: another generation has taken over.
pub(super) fn is_exiting() -> bool {
    let flag = &raw mut ngx_exiting;
    // SAFETY: an aligned word that nginx writes in one store, and that is there as long as the process.
    unsafe { AtomicUsize::from_ptr(flag) }.load(Relaxed) != 0
}

/// Threads started meanwhile inherit the mask: nginx's signals must reach nginx's thread.
pub(super) fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    let mut blocked = MaybeUninit::<sigset_t>::uninit();
    let mut before = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a set of our own; so it is in the calls that follow.
    unsafe { sigfillset(blocked.as_mut_ptr()) };
    for fault in [SIGILL, SIGFPE, SIGSEGV, SIGBUS] {
        // SAFETY: as above.
        unsafe { sigdelset(blocked.as_mut_ptr(), fault as i32) };
    }
    // SAFETY: as above; nginx has one thread at this point.
    unsafe { sigprocmask(SIG_SETMASK as i32, blocked.as_ptr(), before.as_mut_ptr()) };
    let result = f();
    // SAFETY: the set that was in force before, as the first call gave it.
    unsafe { sigprocmask(SIG_SETMASK as i32, before.as_ptr(), std::ptr::null_mut()) };
    result
}

/// The addresses this nginx listens on.
pub(super) fn listening(cycle: &ngx_cycle_t) -> Vec<SocketAddr> {
    // SAFETY: the cycle's listening sockets are an array of this type.
    let sockets = unsafe { cycle.listening.as_slice::<ngx_listening_t>() };
    let address = |socket: &ngx_listening_t| {
        // SAFETY: nginx keeps an address of this length with each of its sockets.
        let raw = unsafe { std::slice::from_raw_parts(socket.sockaddr.cast::<u8>(), socket.socklen as usize) };
        super::sockaddr::parse_sockaddr(raw)
    };
    sockets.iter().filter_map(address).collect()
}

/// Hands what companions have to say to nginx's log, from nginx's own thread.
fn start_timer(cycle: &ngx_cycle_t) {
    // Debug logging wants a connection behind every event. Both live as long as the process.
    // SAFETY: all-zero is how nginx makes these itself.
    let connection = Box::leak(Box::new(unsafe { std::mem::zeroed::<ngx_connection_t>() }));
    // SAFETY: as above.
    let event = Box::leak(Box::new(unsafe { std::mem::zeroed::<ngx_event_t>() }));
    connection.fd = -1;
    event.data = (&raw mut *connection).cast::<c_void>();
    event.handler = Some(on_timer);
    event.log = cycle.log;
    event.set_cancelable(1);
    // SAFETY: an event made for this, on nginx's own thread.
    unsafe { ngx_add_timer(event, DRAIN_EVERY) };
}

unsafe extern "C" fn on_timer(event: *mut ngx_event_t) {
    guarded((), || RUNNING.lock().iter().for_each(|companion| drain(&companion.journal, log::cycle)));
    // SAFETY: written by nginx on this thread only.
    let running = unsafe { ngx_cycle };
    // SAFETY: nginx always has a cycle. The single process may have replaced the one the event was made for.
    let log = unsafe { (*running).log };
    // SAFETY: nginx passes the event it was given.
    unsafe { (*event).log = log };
    // SAFETY: nginx passes the event it was given.
    unsafe { ngx_add_timer(event, DRAIN_EVERY) };
}

pub(super) fn drain(journal: &JournalReader, say: impl Fn(u32, &str)) {
    while let Some(entry) = journal.next_entry() {
        say(log::number(entry.level), &format!("urlproxy: {}", entry.text));
    }
}
