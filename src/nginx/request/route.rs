//! A request's route: kept in the request's pool, read by phases, variables and the choice of a backend.

use std::cell::Cell;

use super::endpoint::Endpoint;
use crate::nginx::conf::location::LocationConf;
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::module::Module;
use crate::nginx::ffi::request::{Request, RequestContext};
use crate::route::{Order, choose, key_hash};
use crate::table::{Counters, Version};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nginx) enum Outcome {
    /// A route of the tool, or of the domain, answers.
    Route,
    /// The default answers.
    Default,
    /// The tool has moved to a host of its own.
    Redirect,
    /// Nobody does.
    Miss,
    /// Nobody can tell without a host, and the client named none.
    NoHost,
    /// The table can't tell: it was never loaded.
    Unready,
}

/// A request's route. Everything it refers to lives as long as the request, or as the configuration.
pub(in crate::nginx) struct RequestRoute<'r> {
    pub outcome: Outcome,
    /// Empty when it is not a tool that answers.
    pub tool: &'r [u8],
    /// In domain mode the domain that was found, the host or its wildcard; else empty.
    pub domain: &'r [u8],
    pub pattern: &'r [u8],
    /// The backends, when there are several.
    pub several: &'r [Endpoint<'r>],
    /// The backend, when there is one.
    pub single: Option<Endpoint<'r>>,
    /// While no backend was needed yet: the number of the record's counters, which count its turns.
    pub pending_turn: Cell<Option<u32>>,
    /// What decides between several.
    order: Cell<Order>,
    /// The endpoint that is asked: the first choice, then whichever the balancer took.
    pub chosen: Cell<usize>,
    pub table: &'r TableConf,
    /// Whose the backends are: [`Record::owner`](crate::table::Record::owner), or 0 when they are the operator's.
    pub owner: u64,
    /// Its record's counters, and whose they were when the request was routed.
    pub counters: Option<(&'static Counters, u64)>,
    /// The record that was found, to see whether it has changed since.
    pub version: Option<Version>,
    /// What this was found for: see [`LocationConf::resolves_like`].
    pub path: &'r [u8],
    pub conf: &'r LocationConf,
}

impl RequestContext for Module {
    type Context<'r> = RequestRoute<'r>;
}

impl<'r> RequestRoute<'r> {
    /// Nothing is found yet.
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

    /// Whether the record that was found is still the one in the table.
    #[inline(always)]
    pub fn is_current(&self) -> bool {
        let Some(version) = self.version else { return true };
        self.table.table.get().is_some_and(|table| table.is_current(version))
    }

    /// Goes on with the backend that an older route of the request chose, if there is still such a one.
    pub fn keep_choice(&self, older: &RequestRoute<'_>) {
        let chosen = older.endpoints().get(older.chosen.get()).filter(|_| older.pending_turn.get().is_none());
        let same = chosen.and_then(|chosen| self.endpoints().iter().position(|endpoint| endpoint == chosen));
        if let Some(at) = same.filter(|_| matches!(older.order.get(), Order::Turn(_))) {
            self.set_turn(at);
        }
    }

    /// Takes this turn.
    fn set_turn(&self, turn: usize) {
        self.pending_turn.set(None);
        self.order.set(Order::Turn(turn));
        self.chosen.set(turn.checked_rem(self.endpoints().len()).unwrap_or(0));
    }

    /// Has the backends asked in the order of their affinity to a key; an empty one changes nothing.
    fn set_hash_key(&self, key: &[u8]) {
        if key.is_empty() {
            return;
        }
        self.order.set(Order::Key(key_hash(key)));
        if let Some(best) = self.choose(0, |_| true) {
            self.chosen.set(best);
        }
    }

    /// The backend that is asked next: one that has no bit in `tried`, and that `admits` lets in if there is such a one.
    pub fn choose(&self, tried: u64, admits: impl Fn(&Endpoint<'_>) -> bool) -> Option<usize> {
        let (endpoints, order) = (self.endpoints(), self.order.get());
        let weight = |at: usize| match (order, endpoints.get(at)) {
            (Order::Key(key), Some(endpoint)) => endpoint.weight(key),
            _ => 0,
        };
        choose(endpoints.len(), order, tried, weight, |at| endpoints.get(at).is_some_and(&admits))
    }

    /// All backends.
    pub fn endpoints(&self) -> &[Endpoint<'r>] {
        match self.several {
            [] => self.single.as_slice(),
            several => several,
        }
    }

    /// Chooses the first of [`Self::endpoints`] to ask, unless that was done: whose turn it is, or whom the hash key says.
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
            // The key may be made of this route's own variables, which know whose turn it is.
            self.set_hash_key(request.evaluate(hash));
        }
    }

    /// The backend that is asked.
    pub fn endpoint(&self, request: Request<'r>) -> Option<&Endpoint<'r>> {
        self.choose_first(request);
        self.endpoints().get(self.chosen.get())
    }

    /// Whose turn it is in this worker, and moves on.
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
