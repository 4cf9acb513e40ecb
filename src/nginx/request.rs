//! One request's route: found once, kept in the request's pool, read by phases, variables and peers.

mod look_up;

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

use nginx_sys::{ngx_http_complex_value, ngx_http_complex_value_t, ngx_http_request_t, ngx_pool_cleanup_t, ngx_str_t};
use ngx::core::Status;
use ngx::http::{HttpModule, HttpModuleLocationConf};

use look_up::Asked;

use super::endpoint::Endpoint;
use super::location_conf::LocationConf;
use super::module::Module;
use super::pool;
use super::table_conf::TableConf;
use crate::route::{Order, choose, key_hash};
use crate::table::{Counters, Version};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
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
pub(super) struct RequestRoute {
    pub outcome: Outcome,
    /// Empty when it is not a tool that answers.
    pub tool: &'static [u8],
    /// In domain mode the domain that was found, the host or its wildcard; else empty.
    pub domain: &'static [u8],
    pub pattern: &'static [u8],
    /// The backends, when there are several.
    several: &'static [Endpoint],
    /// The backend, when there is one.
    single: Option<Endpoint>,
    /// While no backend was needed yet: the number of the record's counters, which count its turns.
    due: Cell<Option<u32>>,
    /// What decides between several.
    order: Cell<Order>,
    /// The endpoint that is asked: the first choice, then whichever the balancer took.
    pub chosen: Cell<usize>,
    pub table: &'static TableConf,
    /// Whose the backends are: [`Record::owner`], or 0 when they are the operator's.
    pub owner: u64,
    /// Its record's counters, and whose they were when the request was routed.
    pub counters: Option<(&'static Counters, u64)>,
    /// The record that was found, to see whether it has changed since.
    version: Option<Version>,
    /// What this was found for: see [`LocationConf::decides_like`].
    uri: &'static [u8],
    conf: *const LocationConf,
    request: *const ngx_http_request_t,
    /// Hangs the route in the pool's list of cleanups, where an internal redirect leaves it.
    cleanup: ngx_pool_cleanup_t,
}

/// The request's route, found now if it wasn't yet; `None` where `urlproxy` is not set and was not before either.
///
/// One decision per request: what was found before counts as long as URI and configuration ask for the same.
///
/// # Safety
/// `r` is a request that nginx is working on. What is returned is gone when the request is.
#[inline(always)]
pub(super) unsafe fn resolve(r: *mut ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: the caller's promise.
    let request = unsafe { &*r };
    // SAFETY: as for `context`.
    let context = unsafe { *context(request) };
    // SAFETY: `find` put it there.
    if let Some(route) = unsafe { context.cast::<RequestRoute>().as_ref() }
        && Module::location_conf(request).is_some_and(|conf| ptr::eq(route.conf, conf))
        && ptr::eq(route.uri.as_ptr(), request.uri.data)
        && route.uri.len() == request.uri.len
    {
        return Some(route);
    }
    // SAFETY: as above.
    unsafe { resolve_anew(r) }
}

/// # Safety
/// As for [`resolve`].
#[inline(never)]
unsafe fn resolve_anew(r: *mut ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: the caller's promise.
    let request = unsafe { &*r };
    let conf = Module::location_conf(request)?;
    // SAFETY: as above.
    let stored = unsafe { stored(request) };
    let Some(table) = conf.table() else { return stored };
    // SAFETY: the path lives as long as the request.
    let uri: &'static [u8] = unsafe { pool::bytes(request.uri) };
    if let Some(stored) = stored
        && (ptr::eq(stored.conf, conf) || stored.is_decided_like(conf))
        && stored.uri == uri
    {
        return Some(stored);
    }
    // SAFETY: as above.
    unsafe { find(r, conf, table, uri, ptr::eq(request, request.main)) }
}

/// The route that the variables show: as [`resolve`], but in the page of an error that of the request that failed, until this
/// location passes the request on.
///
/// # Safety
/// As for [`resolve`].
pub(super) unsafe fn shown(r: *mut ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: the caller's promise.
    let request = unsafe { &*r };
    if request.internal() != 0 && (request.error_page() != 0 || request.err_status != 0) {
        // SAFETY: as above.
        if let Some(stored) = unsafe { stored(request) } {
            return Some(stored);
        }
    }
    // SAFETY: as above.
    unsafe { resolve(r) }
}

/// The route for a request that is passed on now: if the record has changed since it was found, the new one counts.
///
/// # Safety
/// As for [`resolve`].
#[inline(always)]
pub(super) unsafe fn resolve_now(r: *mut ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: the caller's promise.
    let route = unsafe { resolve(r) }?;
    // SAFETY: as above.
    if route.is_current() { Some(route) } else { unsafe { renew(r, route) } }
}

/// # Safety
/// As for [`resolve`]; `route` is the request's.
#[cold]
unsafe fn renew(r: *mut ngx_http_request_t, route: &'static RequestRoute) -> Option<&'static RequestRoute> {
    // SAFETY: the configuration that routes the request lives longer than it.
    let conf = unsafe { &*route.conf };
    // SAFETY: as above.
    let newer = unsafe { find(r, conf, route.table, route.uri, false) }?;
    if newer.outcome == Outcome::Unready && newer.version.is_none() {
        // The table could not tell: what was found before is the best that there is.
        // SAFETY: the caller's promise.
        let context = context(unsafe { &*r });
        // SAFETY: as for `context`.
        unsafe { *context = ptr::from_ref(route).cast_mut().cast() };
        return Some(route);
    }
    newer.keep_choice(route);
    Some(newer)
}

/// What an earlier phase found, also when an internal redirect has cleared the request's contexts.
///
/// # Safety
/// As for [`resolve`].
pub(super) unsafe fn stored(request: &ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: as for `context`.
    let context = unsafe { *context(request) };
    if !context.is_null() {
        // SAFETY: `find` put it there.
        return unsafe { context.cast::<RequestRoute>().as_ref() };
    }
    if request.internal() == 0 && request.filter_finalize() == 0 {
        return None;
    }
    // SAFETY: a request has a pool.
    let pool = unsafe { &*request.pool };
    // SAFETY: the pool's own list.
    let mut cleanup = unsafe { pool.cleanup.as_ref() };
    while let Some(entry) = cleanup {
        if entry.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, KEEP)) {
            // SAFETY: `find` put it there.
            let route = unsafe { entry.data.cast::<RequestRoute>().as_ref() };
            // Subrequests share the pool.
            if let Some(route) = route.filter(|route| ptr::eq(route.request, request)) {
                return Some(route);
            }
        }
        // SAFETY: the pool's own list.
        cleanup = unsafe { entry.next.as_ref() };
    }
    None
}

/// Where nginx keeps the module's context of a request.
fn context(request: &ngx_http_request_t) -> *mut *mut c_void {
    // SAFETY: nginx makes room for each module's context.
    unsafe { request.ctx.add(Module::module().ctx_index) }
}

/// A cleanup that does nothing: nginx clears a request's contexts at an internal redirect, but not its cleanups.
unsafe extern "C" fn keep(_: *mut c_void) {}

const KEEP: unsafe extern "C" fn(*mut c_void) = keep;

/// Looks the route up, and keeps it with the request. `None` only when memory has run out.
///
/// # Safety
/// As for [`resolve`]; `conf` and `uri` live as long as the request.
unsafe fn find(
    r: *mut ngx_http_request_t,
    conf: &'static LocationConf,
    table: &'static TableConf,
    uri: &'static [u8],
    may_redirect: bool,
) -> Option<&'static RequestRoute> {
    // SAFETY: the caller passes a request nginx is working on.
    let request = unsafe { &*r };
    // SAFETY: the request's own string.
    let asked = Asked::of(conf.mode(), uri, || unsafe { pool::bytes(request.headers_in.server) });
    let found = || RequestRoute {
        outcome: Outcome::Route,
        tool: if let Asked::Tool(asked) = &asked { asked.tool } else { b"" },
        domain: b"",
        pattern: b"",
        several: &[],
        single: None,
        due: Cell::new(None),
        order: Cell::new(Order::Turn(0)),
        chosen: Cell::new(0),
        table,
        owner: 0,
        counters: None,
        version: None,
        uri,
        conf,
        request,
        cleanup: ngx_pool_cleanup_t { handler: Some(KEEP), data: ptr::null_mut(), next: ptr::null_mut() },
    };
    // SAFETY: the pool is the request's.
    let placed: *mut RequestRoute = unsafe { pool::place(request.pool, found) }?;
    // SAFETY: nobody else knows of it yet.
    let found = unsafe { &mut *placed };
    found.look_up(request.pool, &asked, may_redirect)?;
    // SAFETY: a request has a pool, and nobody else is at its list now.
    let pool = unsafe { &mut *request.pool };
    found.cleanup.data = placed.cast();
    found.cleanup.next = pool.cleanup;
    // SAFETY: as above. All who read it later have it from `placed`.
    pool.cleanup = unsafe { &raw mut (*placed).cleanup };
    // SAFETY: as for `context`.
    unsafe { *context(request) = placed.cast() };
    // SAFETY: from here on it is shared, and only its cells change.
    Some(unsafe { &*placed })
}

/// What a request's variables make of a text of the configuration; empty when memory has run out.
///
/// # Safety
/// `r` is a request that nginx is working on, `text` is of its configuration.
pub(super) unsafe fn evaluate(r: *mut ngx_http_request_t, text: NonNull<ngx_http_complex_value_t>) -> &'static [u8] {
    let mut value = ngx_str_t::empty();
    // SAFETY: the caller's promise.
    let outcome = unsafe { ngx_http_complex_value(r, text.as_ptr(), &raw mut value) };
    // SAFETY: nginx has just written it, into the request's pool.
    if outcome == Status::NGX_OK.0 { unsafe { pool::bytes(value) } } else { b"" }
}

impl RequestRoute {
    /// Whether this counts at a location of that configuration too.
    fn is_decided_like(&self, conf: &LocationConf) -> bool {
        // SAFETY: the configuration that routes the request lives longer than it.
        let own = unsafe { &*self.conf };
        let text = |hash: Option<NonNull<ngx_http_complex_value_t>>| {
            // SAFETY: nginx's own, of a configuration as above.
            let value = hash.map(|hash| unsafe { hash.as_ref() }.value);
            // SAFETY: as above; it is only compared.
            value.map(|value| unsafe { pool::bytes(value) })
        };
        own.decides_like(conf) && (own.hash == conf.hash || text(own.hash) == text(conf.hash))
    }

    /// Whether the record that was found is still the one in the table.
    #[inline(always)]
    fn is_current(&self) -> bool {
        let Some(version) = self.version else { return true };
        self.table.table.get().is_some_and(|table| table.is_current(version))
    }

    /// Goes on with the backend that an older route of the request chose, if there is still such a one.
    fn keep_choice(&self, older: &Self) {
        let chosen = older.endpoints().get(older.chosen.get()).filter(|_| older.due.get().is_none());
        let same = chosen.and_then(|chosen| self.endpoints().iter().position(|endpoint| endpoint == chosen));
        if let Some(at) = same.filter(|_| matches!(older.order.get(), Order::Turn(_))) {
            self.take(at);
        }
    }

    /// Takes this turn.
    fn take(&self, turn: usize) {
        self.due.set(None);
        self.order.set(Order::Turn(turn));
        self.chosen.set(turn.checked_rem(self.endpoints().len()).unwrap_or(0));
    }

    /// Has the backends asked in the order of their affinity to a key; an empty one changes nothing.
    fn order_by(&self, key: &[u8]) {
        if key.is_empty() {
            return;
        }
        self.order.set(Order::Key(key_hash(key)));
        if let Some(best) = self.choose(0, |_| true) {
            self.chosen.set(best);
        }
    }

    /// The backend that is asked next: one that has no bit in `tried`, and that `admits` lets in if there is such a one.
    pub fn choose(&self, tried: u64, admits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let (endpoints, order) = (self.endpoints(), self.order.get());
        let weight = |at: usize| match (order, endpoints.get(at)) {
            (Order::Key(key), Some(endpoint)) => endpoint.draw(key),
            _ => 0,
        };
        choose(endpoints.len(), order, tried, weight, |at| endpoints.get(at).is_some_and(&admits))
    }

    /// All backends.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self.several {
            [] => self.single.as_slice(),
            several => several,
        }
    }

    /// Chooses the first of [`Self::endpoints`] to ask, unless that was done: whose turn it is, or whom the hash key says.
    ///
    /// # Safety
    /// `r` is the request of this route.
    #[inline(always)]
    pub unsafe fn choose_first(&self, r: *mut ngx_http_request_t) {
        if let Some(number) = self.due.get() {
            // SAFETY: the caller's promise.
            unsafe { self.take_turn(r, number) };
        }
    }

    #[inline(never)]
    unsafe fn take_turn(&self, r: *mut ngx_http_request_t, number: u32) {
        self.take(self.next_turn(number));
        // SAFETY: the configuration that routes the request lives longer than it.
        if let Some(hash) = unsafe { &*self.conf }.hash {
            // The key may be made of this route's own variables, which know whose turn it is.
            // SAFETY: the caller's request, and the configuration that routes it.
            self.order_by(unsafe { evaluate(r, hash) });
        }
    }

    /// The backend that is asked.
    ///
    /// # Safety
    /// As for [`Self::choose_first`].
    pub unsafe fn endpoint(&self, r: *mut ngx_http_request_t) -> Option<&Endpoint> {
        // SAFETY: the caller's promise.
        unsafe { self.choose_first(r) };
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
