//! Publishes the usage of this worker's kept connections in the statistics of all tables: an upstream may serve several.

use crate::nginx::ffi::cycle::Cycle;
use crate::nginx::ffi::process::{self, is_exiting};
use crate::nginx::ffi::timer::Task;
use crate::table::WorkerStats;

/// The periodic task.
pub(super) struct PublishPoolUsage;

impl Task for PublishPoolUsage {
    const EVERY: usize = 1000;

    fn run() {
        publish(is_exiting());
    }
}

/// Publishes the usage a last time. A worker of the next generation with the same number publishes its own within a second.
pub(super) fn end() {
    publish(true);
    each_worker(|worker| worker.set_idle(0));
}

/// Publishes the usage since the last time and, unless it is draining, the number of idle connections of this worker: a worker
/// of the next generation may have its number by now.
fn publish(is_draining: bool) {
    let Some(main) = Cycle::running().and_then(Cycle::main_conf) else { return };
    let (mut idle, mut reused, mut opened, mut evicted) = (0, 0, 0, 0);
    for (connections, usage) in main.keepalives().filter_map(|keepalive| keepalive.take_usage()) {
        idle += connections as u64;
        reused += usage.reused;
        opened += usage.opened;
        evicted += usage.evicted;
    }
    each_worker(|worker| {
        worker.add_connections(reused, opened, evicted);
        if !is_draining {
            worker.set_idle(idle);
        }
    });
}

/// This worker's statistics in each table.
fn each_worker(f: impl Fn(&WorkerStats)) {
    let Some(main) = Cycle::running().and_then(Cycle::main_conf).filter(|_| process::is_worker()) else { return };
    let tables = main.tables().filter_map(|table| table.table.get());
    tables.filter_map(|table| table.worker(process::number())).for_each(f);
}
