//! One request's route: found once, kept in the request's pool, read by phases, variables and peers.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::net::SocketAddr;
use std::ptr;

use nginx_sys::{ngx_http_request_t, ngx_pool_cleanup_add, ngx_pool_t};
use ngx::http::{HttpModule, HttpModuleLocationConf};

use super::location_conf::{DefaultRoute, LocationConf};
use super::module::Module;
use super::pool;
use super::table_conf::{TableConf, Worker};
use crate::route::{Backend, Host, Scheme, split_path};
use crate::table::{BackendView, Counters, HostView, Lookup, Record, RouteView};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A route of the tool answers.
    Route,
    /// The default answers.
    Default,
    /// Nobody does.
    Miss,
    /// The table can't tell: it was never loaded.
    Unready,
}

/// A backend, copied out of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    pub scheme: Scheme,
    pub destination: Destination,
}

/// Where a backend is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destination {
    Addr(SocketAddr),
    Name(&'static str, u16),
}

/// A request's route. Everything it refers to lives as long as the request, or as the configuration.
pub(super) struct RequestRoute {
    pub outcome: Outcome,
    pub tool: &'static [u8],
    pub pattern: &'static [u8],
    pub endpoints: &'static [Endpoint],
    /// The endpoint that is asked: the one whose turn it is, then whichever the balancer chose.
    pub chosen: Cell<usize>,
    pub table: &'static TableConf,
    /// The tool's counters, and whose they were when the request was routed.
    pub counters: Option<(&'static Counters, u64)>,
    /// What this was found for: a rewrite or an internal redirect asks anew.
    uri: &'static [u8],
    conf: *const LocationConf,
}

/// The request's route, found now if it wasn't yet; `None` where `urlproxy` is not set and was not before either.
///
/// # Safety
/// `r` is a request that nginx is working on. What is returned is gone when the request is.
pub(super) unsafe fn resolve(r: *mut ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: the caller's promise.
    let request = unsafe { &*r };
    let conf = Module::location_conf(request)?;
    // SAFETY: as above.
    let stored = unsafe { stored(request) };
    let Some(table) = conf.table else { return stored };
    // SAFETY: the path lives as long as the request.
    let uri: &'static [u8] = unsafe { pool::bytes(request.uri) };
    if let Some(stored) = stored
        && ptr::eq(stored.uri, uri)
        && ptr::eq(stored.conf, conf)
    {
        return Some(stored);
    }
    let found = Finder { pool: request.pool, conf, table, uri }.find()?;
    // SAFETY: as above.
    unsafe { store(r, found) }
}

/// What an earlier phase found, also when an internal redirect has cleared the request's contexts.
///
/// # Safety
/// As for [`resolve`].
pub(super) unsafe fn stored(request: &ngx_http_request_t) -> Option<&'static RequestRoute> {
    // SAFETY: nginx makes room for each module's context.
    let context = unsafe { *request.ctx.add(Module::module().ctx_index) };
    if !context.is_null() {
        // SAFETY: `store` put it there.
        return unsafe { context.cast::<RequestRoute>().as_ref() };
    }
    if request.internal() == 0 && request.filter_finalize() == 0 {
        return None;
    }
    // SAFETY: the pool's own list.
    let mut cleanup = unsafe { (*request.pool).cleanup.as_ref() };
    while let Some(entry) = cleanup {
        if entry.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, KEEP)) {
            // SAFETY: `store` put it there.
            return unsafe { entry.data.cast::<RequestRoute>().as_ref() };
        }
        // SAFETY: the pool's own list.
        cleanup = unsafe { entry.next.as_ref() };
    }
    None
}

/// A cleanup that does nothing: nginx clears a request's contexts at an internal redirect, but not its cleanups.
unsafe extern "C" fn keep(_: *mut c_void) {}

const KEEP: unsafe extern "C" fn(*mut c_void) = keep;

unsafe fn store(r: *mut ngx_http_request_t, found: RequestRoute) -> Option<&'static RequestRoute> {
    // SAFETY: the caller passes a request nginx is working on.
    let request = unsafe { &*r };
    // SAFETY: the pool is the request's.
    let found: &'static RequestRoute = unsafe { pool::place(request.pool, found) }?;
    let data = ptr::from_ref(found).cast_mut().cast::<c_void>();
    // SAFETY: as above.
    let cleanup = unsafe { ngx_pool_cleanup_add(request.pool, 0).as_mut() }?;
    cleanup.handler = Some(KEEP);
    cleanup.data = data;
    // SAFETY: nginx makes room for each module's context.
    unsafe { *request.ctx.add(Module::module().ctx_index) = data };
    Some(found)
}

/// One look into the table.
struct Finder {
    pool: *mut ngx_pool_t,
    conf: &'static LocationConf,
    table: &'static TableConf,
    uri: &'static [u8],
}

impl Finder {
    /// `None` only when memory has run out.
    fn find(&self) -> Option<RequestRoute> {
        let request = split_path(self.uri);
        let mut worker = self.table.worker.try_borrow_mut().ok()?;
        if let Some(found) = self.search(&mut worker, request.tool, request.rest, request.tool, Outcome::Route)? {
            return Some(found);
        }
        match self.conf.default_route() {
            DefaultRoute::Off => {}
            DefaultRoute::Tool(tool) => {
                let tool = tool.as_bytes();
                if let Some(found) = self.search(&mut worker, tool, self.uri, tool, Outcome::Default)? {
                    return Some(found);
                }
            }
            DefaultRoute::Backend(backend) => {
                // SAFETY: the request's pool.
                let endpoints = unsafe { pool::copy(self.pool, &[Endpoint::of(backend)]) }?;
                return Some(RequestRoute { endpoints, ..self.nothing(request.tool, Outcome::Default) });
            }
        }
        let is_loaded = self.table.table.get().is_some_and(|table| table.header().is_loaded());
        Some(self.nothing(request.tool, if is_loaded { Outcome::Miss } else { Outcome::Unready }))
    }

    /// The route of one tool; the inner `None` when no pattern is found.
    fn search(
        &self,
        worker: &mut Worker,
        tool: &[u8],
        rest: &[u8],
        shown: &'static [u8],
        outcome: Outcome,
    ) -> Option<Option<RequestRoute>> {
        let Some(table) = self.table.table.get() else { return Some(None) };
        let Worker { scratch, patterns, turns } = worker;
        let record = match table.lookup(tool, scratch) {
            Lookup::Found(record) => record,
            Lookup::Absent => return Some(None),
            Lookup::Contended => return Some(Some(self.nothing(shown, Outcome::Unready))),
        };
        let Some(route) = record.select(rest, patterns) else { return Some(None) };
        let endpoints = self.copy_endpoints(&route)?;
        let pattern: &[u8] = match route.pattern {
            b".*" => b".*",
            // SAFETY: the request's pool.
            other => unsafe { pool::copy(self.pool, other) }?,
        };
        let chosen = if endpoints.len() > 1 { take_turn(turns, &record, table.capacity().tools) } else { 0 };
        let chosen = Cell::new(chosen % endpoints.len().max(1));
        let counters = table.counters(record.counters()).map(|line| (line, line.ticket()));
        Some(Some(RequestRoute { pattern, endpoints, chosen, counters, ..self.nothing(shown, outcome) }))
    }

    fn copy_endpoints(&self, route: &RouteView<'_>) -> Option<&'static [Endpoint]> {
        let copied = |backend: BackendView<'_>| {
            let destination = match backend.host {
                HostView::Ip(ip) => Destination::Addr(SocketAddr::new(ip, backend.port)),
                HostView::Name(name) => {
                    // SAFETY: the request's pool.
                    let name = unsafe { pool::copy(self.pool, name.as_bytes()) }?;
                    Destination::Name(std::str::from_utf8(name).ok()?, backend.port)
                }
            };
            Some(Endpoint { scheme: backend.scheme, destination })
        };
        if route.backend_count == 1 {
            let endpoint = copied(route.backend(0)?)?;
            // SAFETY: the request's pool.
            return unsafe { pool::place(self.pool, endpoint) }.map(|e| std::slice::from_ref(e));
        }
        let endpoints: Option<Vec<Endpoint>> = route.backends().map(copied).collect();
        // SAFETY: the request's pool.
        unsafe { pool::copy(self.pool, &endpoints?) }
    }

    fn nothing(&self, tool: &'static [u8], outcome: Outcome) -> RequestRoute {
        RequestRoute {
            outcome,
            tool,
            pattern: b"",
            endpoints: &[],
            chosen: Cell::new(0),
            table: self.table,
            counters: None,
            uri: self.uri,
            conf: self.conf,
        }
    }
}

/// Whose turn it is in this worker, and moves on.
fn take_turn(turns: &mut Vec<u32>, record: &Record<'_>, tools: usize) -> usize {
    if turns.is_empty() {
        turns.resize(tools, 0);
    }
    let Some(turn) = turns.get_mut(record.counters() as usize) else { return 0 };
    let now = *turn;
    *turn = now.wrapping_add(1);
    now as usize
}

impl Endpoint {
    fn of(backend: &'static Backend) -> Self {
        let destination = match (&backend.host, backend.socket_addr()) {
            (_, Some(addr)) => Destination::Addr(addr),
            (Host::Name(name), None) => Destination::Name(name, backend.port),
            (_, None) => Destination::Name("", backend.port),
        };
        Self { scheme: backend.scheme, destination }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            Destination::Addr(addr) => write!(f, "{}://{addr}", self.scheme.as_str()),
            Destination::Name(name, port) => write!(f, "{}://{name}:{port}", self.scheme.as_str()),
        }
    }
}

impl RequestRoute {
    /// The backend that is asked.
    pub fn endpoint(&self) -> Option<&'static Endpoint> {
        self.endpoints.get(self.chosen.get())
    }
}
