//! One request's route: found once, kept in the request's pool, read by phases, variables and peers.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::net::SocketAddr;
use std::ptr;

use nginx_sys::{ngx_http_request_t, ngx_pool_cleanup_t, ngx_pool_t};
use ngx::http::{HttpModule, HttpModuleLocationConf};

use super::location_conf::{DefaultRoute, LocationConf};
use super::module::Module;
use super::pool;
use super::table_conf::{TableConf, Worker};
use crate::route::{Backend, Host, Scheme, split_path};
use crate::table::{BackendView, Counters, HostView, Lookup, Record};

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
    /// The backends, when there are several.
    several: &'static [Endpoint],
    /// The backend, when there is one.
    single: Option<Endpoint>,
    /// The endpoint that is asked: the one whose turn it is, then whichever the balancer chose.
    pub chosen: Cell<usize>,
    pub table: &'static TableConf,
    /// The tool's counters, and whose they were when the request was routed.
    pub counters: Option<(&'static Counters, u64)>,
    /// What this was found for: a rewrite or an internal redirect asks anew.
    uri: &'static [u8],
    conf: *const LocationConf,
    request: *const ngx_http_request_t,
    /// Hangs the route in the pool's list of cleanups, where an internal redirect leaves it.
    cleanup: ngx_pool_cleanup_t,
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
    let Some(table) = conf.table() else { return stored };
    // SAFETY: the path lives as long as the request.
    let uri: &'static [u8] = unsafe { pool::bytes(request.uri) };
    if let Some(stored) = stored
        && ptr::eq(stored.uri, uri)
        && ptr::eq(stored.conf, conf)
    {
        return Some(stored);
    }
    // SAFETY: as above.
    unsafe { find(r, conf, table, uri) }
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
unsafe fn find(
    r: *mut ngx_http_request_t,
    conf: &'static LocationConf,
    table: &'static TableConf,
    uri: &'static [u8],
) -> Option<&'static RequestRoute> {
    // SAFETY: the caller passes a request nginx is working on.
    let request = unsafe { &*r };
    let asked = split_path(uri);
    let found = || RequestRoute {
        outcome: Outcome::Route,
        tool: asked.tool,
        pattern: b"",
        several: &[],
        single: None,
        chosen: Cell::new(0),
        table,
        counters: None,
        uri,
        conf,
        request,
        cleanup: ngx_pool_cleanup_t { handler: Some(KEEP), data: ptr::null_mut(), next: ptr::null_mut() },
    };
    // SAFETY: the pool is the request's.
    let found: &'static mut RequestRoute = unsafe { pool::place(request.pool, found) }?;
    found.look_up(request.pool, asked.rest)?;
    let data = ptr::from_mut(found).cast::<c_void>();
    // SAFETY: a request has a pool, and nobody else is at its list now.
    let pool = unsafe { &mut *request.pool };
    found.cleanup.data = data;
    found.cleanup.next = pool.cleanup;
    pool.cleanup = &raw mut found.cleanup;
    // SAFETY: as for `context`.
    unsafe { *context(request) = data };
    Some(found)
}

/// Whether a tool answers.
#[derive(PartialEq)]
enum Answer {
    Yes,
    No,
    /// The table could not tell.
    Unknown,
}

impl RequestRoute {
    /// Finds out who answers: the tool, else the default. `None` only when memory has run out.
    #[inline]
    fn look_up(&mut self, pool: *mut ngx_pool_t, rest: &[u8]) -> Option<()> {
        // SAFETY: the configuration that routes the request lives longer than it.
        let conf = unsafe { &*self.conf };
        let mut worker = self.table.worker.try_borrow_mut().ok()?;
        // Before the search: what is loaded meanwhile must not turn "not yet" into "no such tool".
        let is_loaded = self.table.table.get().is_some_and(|table| table.header().is_loaded());
        let mut answer = self.search(pool, &mut worker, self.tool, rest)?;
        if answer == Answer::No && is_loaded {
            match conf.default_route() {
                DefaultRoute::Off => {}
                DefaultRoute::Tool(tool) => {
                    answer = self.search(pool, &mut worker, tool.as_bytes(), self.uri)?;
                    if answer == Answer::Yes {
                        self.tool = tool.as_bytes();
                        self.outcome = Outcome::Default;
                    }
                }
                DefaultRoute::Backend(backend) => {
                    self.single = Some(Endpoint::of(backend));
                    self.outcome = Outcome::Default;
                    answer = Answer::Yes;
                }
            }
        }
        if answer != Answer::Yes {
            let is_known = answer == Answer::No && is_loaded;
            self.outcome = if is_known { Outcome::Miss } else { Outcome::Unready };
        }
        Some(())
    }

    /// Takes over the route of a tool, if one of its patterns is found.
    #[inline]
    fn search(&mut self, pool: *mut ngx_pool_t, worker: &mut Worker, tool: &[u8], rest: &[u8]) -> Option<Answer> {
        let Some(table) = self.table.table.get() else { return Some(Answer::Unknown) };
        let Worker { scratch, patterns, turns } = worker;
        let record = match table.lookup(tool, scratch) {
            Lookup::Found(record) => record,
            Lookup::Absent => return Some(Answer::No),
            Lookup::Contended => return Some(Answer::Unknown),
        };
        let Some(route) = record.select(rest, patterns) else { return Some(Answer::No) };
        self.pattern = match route.pattern {
            b".*" => b".*",
            // SAFETY: the request's pool.
            other => unsafe { pool::copy(pool, other) }?,
        };
        if route.backend_count == 1 {
            self.single = Some(Endpoint::copied(pool, route.first_backend()?)?);
        } else {
            let endpoints: Option<Vec<Endpoint>> = route.backends().map(|b| Endpoint::copied(pool, b)).collect();
            // SAFETY: the request's pool.
            self.several = unsafe { pool::copy(pool, &endpoints?) }?;
            let turn = take_turn(turns, &record, table.capacity().tools);
            self.chosen.set(turn.checked_rem(self.several.len()).unwrap_or(0));
        }
        self.counters = table.counters(record.counters()).map(|line| (line, line.ticket()));
        Some(Answer::Yes)
    }

    /// All backends.
    pub fn endpoints(&self) -> &[Endpoint] {
        if self.several.is_empty() { self.single.as_slice() } else { self.several }
    }

    /// The backend that is asked.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoints().get(self.chosen.get())
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
    /// Copies what the table's record says out of it.
    #[inline(always)]
    fn copied(pool: *mut ngx_pool_t, backend: BackendView<'_>) -> Option<Self> {
        let destination = match backend.host {
            HostView::Ip(ip) => Destination::Addr(SocketAddr::new(ip, backend.port)),
            HostView::Name(name) => {
                // SAFETY: the request's pool.
                let name = unsafe { pool::copy(pool, name.as_bytes()) }?;
                Destination::Name(std::str::from_utf8(name).ok()?, backend.port)
            }
        };
        Some(Self { scheme: backend.scheme, destination })
    }

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
