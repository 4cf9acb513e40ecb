//! A table of the running configuration: its settings, its zone, and what a worker keeps for it between requests.

use std::cell::{Cell, OnceCell, RefCell};
use std::error::Error;
use std::time::Duration;

use crate::admin::readiness::ReadyLimits;
use crate::directive::table::TableSettings;
use crate::nginx::ffi::log;
use crate::nginx::ffi::zone::ZoneOwner;
use crate::sync::Settings;
use crate::table::{PublishError, Scratch, Table, carry_over};

/// A table of the running configuration.
pub(in crate::nginx) struct TableConf {
    /// Name in the configuration.
    pub name: String,
    pub zone_bytes: usize,
    /// How long a cold start may wait for the initial load.
    pub wait_for_routes: Duration,
    /// Settings of the companion. The proxy's own sockets are added once they are open.
    pub settings: Settings,
    /// What makes the proxy unready.
    pub ready_limits: ReadyLimits,
    /// Set when nginx maps the zone.
    pub table: OnceCell<Table<'static>>,
    /// The table of the current configuration that this table carries routes over from, if the zone is new.
    pub predecessor: Cell<Option<Table<'static>>>,
    /// Whether the predecessor has another source.
    pub is_new_source: Cell<bool>,
    /// Set when nginx maps the zone.
    pub zone_origin: Cell<ZoneOrigin>,
    /// State of this worker between requests.
    pub worker: RefCell<Worker>,
}

/// How a table got its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nginx) enum ZoneOrigin {
    /// New and empty.
    Fresh,
    /// The zone of the previous configuration.
    Reused,
    /// New, with the routes of the previous configuration.
    CarriedOver { tools: u64 },
}

/// State of one worker between requests.
pub(in crate::nginx) struct Worker {
    /// Buffer that records are copied to.
    pub scratch: Scratch,
    /// The next round-robin turn of each tool, indexed by the number of the tool's counters.
    pub turns: Vec<u32>,
}

impl ZoneOwner for TableConf {
    fn on_mapped(&self, table: Table<'static>, is_fresh: bool) -> Result<(), PublishError> {
        let _ = self.table.set(table);
        self.zone_origin.set(if is_fresh { self.carry_over_routes(table)? } else { ZoneOrigin::Reused });
        Ok(())
    }

    fn log_error(&self, error: &dyn Error) {
        log::write_to_cycle(nginx_sys::NGX_LOG_EMERG, &format!("urlproxy_table {}: {error}", self.name));
    }
}

impl TableConf {
    /// A table without a zone yet.
    pub fn new(name: &str, settings: TableSettings) -> Self {
        let TableSettings { zone_bytes, wait_for_routes, companion, ready_limits } = settings;
        Self {
            name: name.to_owned(),
            zone_bytes,
            wait_for_routes,
            settings: companion,
            ready_limits,
            table: OnceCell::new(),
            predecessor: Cell::new(None),
            is_new_source: Cell::new(false),
            zone_origin: Cell::new(ZoneOrigin::Fresh),
            worker: RefCell::new(Worker { scratch: Scratch::default(), turns: Vec::new() }),
        }
    }

    /// Copies the routes of the predecessor into a new table. The predecessor stays mapped and written to until this
    /// configuration takes effect.
    fn carry_over_routes(&self, table: Table<'static>) -> Result<ZoneOrigin, PublishError> {
        match self.predecessor.get().filter(|old| old.header().is_loaded()) {
            Some(old) => carry_over(old, table).map(|tools| ZoneOrigin::CarriedOver { tools }),
            None => Ok(ZoneOrigin::Fresh),
        }
    }
}
