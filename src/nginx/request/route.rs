//! The route of a request, stored in its pool. Phase handlers, variables and backend selection read it.

use std::cell::Cell;

use super::endpoint::Endpoint;
use crate::nginx::conf::location::LocationConf;
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::module::Module;
use crate::nginx::ffi::request::{Request, RequestContext};
use crate::route::{Order, choose, key_hash};
use crate::table::{Counters, RequestResult, Version};

/// The result of a route lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nginx) enum Outcome {
    /// A route of the tool or domain matches.
    Route,
    /// `urlproxy_default` matches.
    Default,
    /// The tool has its own host: canonical redirect.
    Redirect,
    /// The domain moved, and the new one has a route.
    Moved,
    /// Nothing matches.
    Miss,
    /// The mode needs a host, and the request has none.
    NoHost,
    /// Unknown: routes or redirects are not loaded, the tool's are still being built, or its record changed at each try.
    Unready,
}

impl Outcome {
    /// The value of `$urlproxy_result`.
    pub fn result(self) -> RequestResult {
        match self {
            Self::Route => RequestResult::Route,
            Self::Default => RequestResult::Default,
            Self::Redirect | Self::Moved => RequestResult::Redirect,
            Self::Miss | Self::NoHost => RequestResult::Miss,
            Self::Unready => RequestResult::Unready,
        }
    }
}

/// The route of a request. All references live as long as the request or the configuration.
pub(in crate::nginx) struct RequestRoute<'r> {
    pub outcome: Outcome,
    /// The tool, or the default tool that serves the request; otherwise empty in domain mode.
    pub tool: &'r [u8],
    /// In domain mode the matched domain: the host or its wildcard, or those of a moved domain. Otherwise empty.
    pub domain: &'r [u8],
    pub pattern: &'r [u8],
    /// The backends, if there are several.
    pub several: &'r [Endpoint<'r>],
    /// The backend, if there is exactly one.
    pub single: Option<Endpoint<'r>>,
    /// Until a backend is chosen: the number of the record's counters, which indexes its round-robin turn.
    pub pending_turn: Cell<Option<u32>>,
    /// How several backends are ordered.
    order: Cell<Order>,
    /// Index of the current endpoint: the first choice, then the choices of the balancer.
    pub chosen: Cell<usize>,
    pub table: &'r TableConf,
    /// The owner of the backends: [`Record::owner`](crate::table::Record::owner), or 0 for a backend from the configuration.
    pub owner: u64,
    /// The counters of the record, and the ticket that detects a new owner of the counters.
    pub counters: Option<(&'static Counters, u64)>,
    /// The version of the record, to detect later changes.
    pub version: Option<Version>,
    /// Path and settings of the lookup: see [`LocationConf::resolves_like`].
    pub path: &'r [u8],
    pub conf: &'r LocationConf,
}

impl RequestContext for Module {
    type Context<'r> = RequestRoute<'r>;
}

impl<'r> RequestRoute<'r> {
    /// A route before its lookup.
    #[inline(always)]
    pub fn new(conf: &'r LocationConf, table: &'r TableConf, path: &'r [u8], tool: &'r [u8]) -> Self {
        Self {
            outcome: Outcome::Route,
            tool,
            domain: b"",
            pattern: b"",
            several: &[],
            single: None,
            pending_turn: Cell::new(None),
            order: Cell::new(Order::Turn(0)),
            chosen: Cell::new(0),
            table,
            owner: 0,
            counters: None,
            version: None,
            path,
            conf,
        }
    }

    /// Whether the record is unchanged in the table.
    #[inline(always)]
    pub fn is_current(&self) -> bool {
        let Some(version) = self.version else { return true };
        self.table.table.get().is_some_and(|table| table.is_current(version))
    }

    /// Keeps the backend chosen by an older route of the request, if this route still has it.
    pub fn keep_choice(&self, older: &RequestRoute<'_>) {
        let chosen = older.endpoints().get(older.chosen.get()).filter(|_| older.pending_turn.get().is_none());
        let same = chosen.and_then(|chosen| self.endpoints().iter().position(|endpoint| endpoint == chosen));
        if let Some(at) = same.filter(|_| matches!(older.order.get(), Order::Turn(_))) {
            self.set_turn(at);
        }
    }

    /// Chooses the backend of a round-robin turn.
    fn set_turn(&self, turn: usize) {
        self.pending_turn.set(None);
        self.order.set(Order::Turn(turn));
        self.chosen.set(turn.checked_rem(self.endpoints().len()).unwrap_or(0));
    }

    /// Orders the backends by their weight for `key`. An empty key changes nothing.
    fn set_hash_key(&self, key: &[u8]) {
        if key.is_empty() {
            return;
        }
        self.order.set(Order::Key(key_hash(key)));
        if let Some(best) = self.choose(0, |_| true) {
            self.chosen.set(best);
        }
    }

    /// Chooses the next backend without a bit in `tried`, preferably one that `admits` accepts.
    pub fn choose(&self, tried: u64, admits: impl Fn(&Endpoint<'_>) -> bool) -> Option<usize> {
        let (endpoints, order) = (self.endpoints(), self.order.get());
        let weight = |at: usize| match (order, endpoints.get(at)) {
            (Order::Key(key), Some(endpoint)) => endpoint.weight(key),
            _ => 0,
        };
        choose(endpoints.len(), order, tried, weight, |at| endpoints.get(at).is_some_and(&admits))
    }

    /// All backends of the route.
    pub fn endpoints(&self) -> &[Endpoint<'r>] {
        match self.several {
            [] => self.single.as_slice(),
            several => several,
        }
    }

    /// Chooses the first backend, by turn or by hash key, unless that is done.
    #[inline(always)]
    pub fn choose_first(&self, request: Request<'r>) {
        if let Some(number) = self.pending_turn.get() {
            self.take_turn(request, number);
        }
    }

    #[inline(never)]
    fn take_turn(&self, request: Request<'r>, number: u32) {
        self.set_turn(self.next_turn(number));
        if let Some(hash) = &self.conf.hash {
            // The key may contain this route's own variables, which show the backend of this turn.
            self.set_hash_key(request.evaluate(hash));
        }
    }

    /// The current backend, chosen on first use.
    pub fn endpoint(&self, request: Request<'r>) -> Option<&Endpoint<'r>> {
        self.choose_first(request);
        self.endpoints().get(self.chosen.get())
    }

    /// Advances the round-robin turn of this worker.
    fn next_turn(&self, number: u32) -> usize {
        let (Ok(mut worker), Some(table)) = (self.table.worker.try_borrow_mut(), self.table.table.get()) else {
            return 0;
        };
        if worker.turns.is_empty() {
            worker.turns.resize(table.capacity().tools, 0);
        }
        let Some(turn) = worker.turns.get_mut(number as usize) else { return 0 };
        let now = *turn;
        *turn = now.wrapping_add(1);
        now as usize
    }
}
