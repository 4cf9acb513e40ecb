//! Process lifecycle: initial load in the master, companions in worker 0, and a journal from their threads to nginx's log.

mod companions;
mod first_load;
mod journal;
mod pool_usage;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nginx_sys::{NGX_LOG_EMERG, NGX_LOG_NOTICE, NGX_LOG_WARN};
use rustix::process::{Resource, getrlimit};

use super::conf::main::MainConf;
use super::conf::table::ZoneOrigin;
use super::ffi::cycle::Cycle;
use super::ffi::{process, timer};
use companions::DrainJournals;
use pool_usage::PublishPoolUsage;

/// Number of configurations that took effect before this process was created.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// In the master, after the configuration is accepted and the sockets are open: loads new tables.
pub(super) fn init_module(cycle: Cycle<'_>) {
    let log = |level, text: &str| cycle.log().write(level, text);
    let Some(main) = cycle.main_conf() else { return };
    main.check_connections(cycle.worker_connections(), |text| log(NGX_LOG_WARN, text));
    main.check_files(|text| log(NGX_LOG_WARN, text));
    if process::is_test() {
        return;
    }
    let (build, nginx) = (env!("URLPROXY_BUILD_ID"), env!("URLPROXY_NGINX_VERSION"));
    let version = env!("CARGO_PKG_VERSION");
    log(NGX_LOG_NOTICE, &format!("urlproxy {version}, build {build} for nginx {nginx}"));
    // Only a single process reloads with its companion running. It unmaps the old zones next.
    let is_running = companions::are_running();
    GENERATION.fetch_add(1, Relaxed);
    companions::stop_all();
    let mut fresh = Vec::new();
    for table in main.tables() {
        if let Err(error) = companions::create_writer_lock(&table.name) {
            log(
                NGX_LOG_EMERG,
                &format!(
                    "urlproxy: cannot create the writer lock; routes are not updated, table={} error=\"{error}\"",
                    table.name
                ),
            );
        }
        match table.zone_origin.get() {
            ZoneOrigin::Reused => {}
            ZoneOrigin::CarriedOver { tools } => {
                let text = format!("urlproxy: routes carried over to the new zone, table={} tools={tools}", table.name);
                log(NGX_LOG_NOTICE, &text);
            }
            ZoneOrigin::Fresh => fresh.push(table),
        }
    }
    first_load::load(&fresh, cycle, log);
    if is_running {
        companions::start_all(main, cycle, GENERATION.load(Relaxed));
    }
}

/// In each process: worker 0, or the single process, starts the companions.
pub(super) fn init_process(cycle: Cycle<'_>) {
    crate::redis_client::forget_lookups();
    let Some(main) = cycle.main_conf() else { return };
    limit_kept_connections(main);
    // Also without `urlproxy_keepalive`: a former configuration may have had it.
    if process::is_worker() && main.tables().next().is_some() {
        timer::start::<PublishPoolUsage>(cycle);
    }
    if process::is_first_worker() && main.tables().next().is_some() {
        companions::start_all(main, cycle, GENERATION.load(Relaxed));
        timer::start::<DrainJournals>(cycle);
    }
}

/// In each process, at exit.
pub(super) fn exit_process() {
    pool_usage::publish();
    companions::stop_all();
}

/// Reserves half of this worker's file descriptors for requests. nginx closes idle connections when it runs short of
/// `worker_connections`, but not when it runs short of descriptors.
fn limit_kept_connections(main: &MainConf) {
    let pools = main.keepalives().count();
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    if let Some(limit) = limit.filter(|_| pools > 0) {
        main.keepalives().for_each(|keepalive| keepalive.lower_limit(limit / 2 / pools));
    }
}
