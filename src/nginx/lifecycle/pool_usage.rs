//! Publishes the usage of this worker's kept connections in the statistics of all tables: an upstream may serve several.

use crate::nginx::ffi::cycle::Cycle;
use crate::nginx::ffi::process;
use crate::nginx::ffi::timer::Task;

/// The periodic task.
pub(super) struct PublishPoolUsage;

impl Task for PublishPoolUsage {
    const EVERY: usize = 1000;

    fn run() {
        publish();
    }
}

/// Publishes the number of idle connections and the usage since the last time.
pub(super) fn publish() {
    let Some(cycle) = Cycle::running().filter(|_| process::is_worker()) else { return };
    let Some(main) = cycle.main_conf() else { return };
    let (mut idle, mut reused, mut opened, mut evicted) = (0, 0, 0, 0);
    for (connections, usage) in main.keepalives().filter_map(|keepalive| keepalive.take_usage()) {
        idle += connections as u64;
        reused += usage.reused;
        opened += usage.opened;
        evicted += usage.evicted;
    }
    for table in main.tables().filter_map(|table| table.table.get()) {
        if let Some(worker) = table.worker(process::number()) {
            worker.add_connections(reused, opened, evicted);
            // A worker of the next generation may have this number by now.
            if !process::is_exiting() {
                worker.set_idle(idle);
            }
        }
        // Before a reload there may have been more workers.
        if process::is_first_worker()
            && !process::is_exiting()
            && let Some(workers) = process::count(cycle)
        {
            table.forget_workers_from(workers);
        }
    }
}
