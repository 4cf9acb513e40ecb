//! The peers of an upstream with `urlproxy_peers` are the backends of the request's route.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ptr;

use nginx_sys::{
    NGX_LOG_ERR, NGX_LOG_WARN, NGX_PEER_FAILED, ngx_current_msec, ngx_http_request_t, ngx_http_upstream_srv_conf_t,
    ngx_http_upstream_t, ngx_int_t, ngx_peer_connection_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;

use super::addr_text::AddrText;
use super::endpoint::{Destination, Endpoint};
use super::guard::guarded;
use super::keepalive::{Ending, Keepalive, Request, Taken};
use super::kept::{KeptFor, Networks};
use super::log;
use super::pool;
use super::request::{RequestRoute, resolve_now};
use super::sockaddr::PeerAddress;
use crate::keepalive::{Key, Ticket};
use crate::route::Scheme;
use crate::table::{Health, HealthKey, HealthSettings};

/// What this module has of an upstream with `urlproxy_peers`.
pub(super) struct Upstream {
    pub conf: *const ngx_http_upstream_srv_conf_t,
    pub health: HealthSettings,
    /// Networks whose plain connections any record may use.
    pub shared: Networks,
    /// What keeps connections, unless nginx does.
    pub keepalive: Option<Box<Keepalive>>,
}

/// One request's way through its backends.
struct Peers {
    route: &'static RequestRoute,
    conf: &'static Upstream,
    request: *mut ngx_http_request_t,
    /// Where the first choice is kept, once a backend was asked: nearly always the only one.
    first: MaybeUninit<Chosen>,
    is_asked: bool,
    upstream: *mut ngx_http_upstream_t,
    /// Whether nginx can speak TLS here; then it speaks to each backend as the backend's scheme says.
    has_tls: bool,
    /// Whether a kept connection had gone stale: from then on the request goes on new ones.
    needs_new: bool,
    /// The backend that is asked.
    at: usize,
    /// What its connection may be used for again.
    key: Option<Key>,
    /// Of its connection, if that was a kept one.
    ticket: Option<Ticket>,
    /// The address of the backend that is asked.
    text: *const AddrText,
    /// A bit for each backend that was asked, or can't be: a name, or not of a scheme that nginx speaks here.
    tried: u64,
    /// A bit for each whose kept connection had gone stale: it may be asked again, on a new one.
    stale: u64,
}

/// The address and the name of a chosen backend: nginx reads both again when it logs.
struct Chosen {
    address: PeerAddress,
    text: AddrText,
    name: ngx_str_t,
}

pub(super) unsafe extern "C" fn init_peer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the request it is working on.
        let request = unsafe { &*r };
        // SAFETY: as above.
        let route = unsafe { resolve_now(r) };
        let Some(route) = route else {
            let text = "urlproxy_peers: the request has no route, its location needs \"urlproxy\"";
            // SAFETY: a request has a connection.
            let connection = unsafe { &*request.connection };
            // SAFETY: the connection's own log.
            unsafe { log::write(connection.log, NGX_LOG_ERR, text) };
            return Status::NGX_ERROR.0;
        };
        // SAFETY: it is this request's.
        unsafe { route.choose_first(r) };
        // SAFETY: nginx has made the request's upstream.
        let Some(upstream) = (unsafe { request.upstream.as_mut() }) else { return Status::NGX_ERROR.0 };
        // SAFETY: nginx passes the upstream.
        let conf = unsafe { (*us).peer.data };
        // SAFETY: `init_upstream` has put it there, and the configuration lives longer than its requests.
        let conf: &'static Upstream = unsafe { &*conf.cast() };
        let has_tls = upstream.ssl() != 0;
        let unusable = unusable(route.endpoints(), has_tls);
        let peers = || Peers {
            route,
            conf,
            request: r,
            first: MaybeUninit::uninit(),
            is_asked: false,
            upstream,
            has_tls,
            needs_new: false,
            at: 0,
            key: None,
            ticket: None,
            text: ptr::null(),
            tried: unusable,
            stale: 0,
        };
        // SAFETY: the request's pool.
        let Some(peers) = (unsafe { pool::place(request.pool, peers) }) else { return Status::NGX_ERROR.0 };
        let peer = &mut upstream.peer;
        peer.data = (&raw mut *peers).cast();
        peer.get = Some(get);
        peer.free = Some(free);
        peer.tries = route.endpoints().len() - unusable.count_ones() as usize;
        // Round robin's own would take our data for its own.
        peer.set_session = Some(set_session);
        peer.save_session = Some(save_session);
        Status::NGX_OK.0
    })
}

unsafe extern "C" fn get(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the connection it is working on.
        let pc = unsafe { &mut *pc };
        // SAFETY: and with it what `init_peer` set.
        let peers = unsafe { &mut *data.cast::<Peers>() };
        let route = peers.route;
        let at = match route.endpoints() {
            // Nearly always there is one.
            [_] if !peers.is_asked => (peers.tried == 0).then_some(0),
            _ => peers.choose(),
        };
        let endpoint = at.and_then(|at| peers.route.endpoints().get(at));
        let (Some(at), Some(Endpoint { scheme, destination: Destination::Addr(addr) })) = (at, endpoint) else {
            peers.report_unusable(pc);
            return Status::NGX_BUSY.0;
        };
        let scheme = *scheme;
        peers.tried |= 1 << at;
        peers.at = at;
        peers.route.chosen.set(at);
        if peers.has_tls {
            peers.speak(scheme);
        }
        pc.set_cached(0);
        pc.connection = ptr::null_mut();
        match peers.place(pc, scheme, addr) {
            Some(()) if pc.connection.is_null() => Status::NGX_OK.0,
            Some(()) => Status::NGX_DONE.0,
            None => Status::NGX_ERROR.0,
        }
    })
}

unsafe extern "C" fn free(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    guarded((), || {
        // SAFETY: nginx passes the connection it is working on.
        let pc = unsafe { &mut *pc };
        // SAFETY: and with it what `init_peer` set.
        let peers = unsafe { &mut *data.cast::<Peers>() };
        pc.tries = pc.tries.saturating_sub(1);
        let has_failed = state & NGX_PEER_FAILED as ngx_uint_t != 0;
        let was_closed = has_failed && pc.cached() != 0 && !peers.has_answered() && !has_timed_out(pc);
        if let (Some(keepalive), Some(key)) = (&peers.conf.keepalive, &peers.key) {
            let ending = Ending { upstream: peers.upstream, has_failed, text: peers.text };
            keepalive.keep(key, peers.ticket.take(), pc, &ending);
        }
        if was_closed {
            // Not the backend's failure: it had closed a connection that was kept for it.
            peers.stale |= 1 << peers.at;
            peers.needs_new = true;
            return;
        }
        let endpoints = peers.route.endpoints();
        let Some(endpoint) = endpoints.get(peers.at).filter(|_| endpoints.len() > 1) else { return };
        let (Some(key), Some(health)) = (peers.health_key(endpoint), peers.health()) else { return };
        if !has_failed {
            // A client that went away says nothing about the backend.
            if peers.has_answered() {
                health.answered(key);
            }
        } else if health.failed(key, now_seconds(), peers.conf.health) {
            let text = format!("urlproxy_peers: backend {endpoint}{} is out for a while", of_tool(peers.route));
            // SAFETY: the connection's own log.
            unsafe { log::write(pc.log, NGX_LOG_WARN, &text) };
        }
    });
}

/// The tool that has the backends, for the log; nginx's own `host:` shows a domain.
fn of_tool(route: &RequestRoute) -> String {
    match route.tool {
        b"" => String::new(),
        tool => format!(" of tool \"{}\"", tool.escape_ascii()),
    }
}

/// How a location would have to say that it can speak to https backends.
fn expected_scheme(module: &[u8]) -> &'static str {
    match module {
        b"grpc" => "\"grpcs://\"",
        b"uwsgi" => "\"suwsgi://\"",
        b"fastcgi" | b"scgi" => "an http backend: it has no TLS",
        _ => "\"https://\", which serves both",
    }
}

/// A bit for each backend that this request can't ask.
fn unusable(endpoints: &[Endpoint], has_tls: bool) -> u64 {
    let usable = |endpoint: &Endpoint| {
        (has_tls || endpoint.scheme == Scheme::Http) && matches!(endpoint.destination, Destination::Addr(_))
    };
    if let [single] = endpoints {
        return u64::from(!usable(single));
    }
    endpoints.iter().enumerate().filter(|(_, e)| !usable(e)).fold(0, |bits, (at, _)| bits | 1 << at)
}

/// The bits of backends of a former route, at the places that they have in the newer one.
fn moved_bits(bits: u64, former: &[Endpoint], newer: &[Endpoint]) -> u64 {
    let has_bit =
        |endpoint: &Endpoint| former.iter().position(|other| other == endpoint).is_some_and(|at| bits >> at & 1 == 1);
    newer.iter().enumerate().filter(|(_, endpoint)| has_bit(endpoint)).fold(0, |bits, (at, _)| bits | 1 << at)
}

fn has_timed_out(pc: &ngx_peer_connection_t) -> bool {
    // SAFETY: the connection is there until nginx is done with the peer.
    let Some(connection) = (unsafe { pc.connection.as_ref() }) else { return false };
    // SAFETY: a connection has its events.
    let read = unsafe { connection.read.as_ref() };
    // SAFETY: as above.
    let write = unsafe { connection.write.as_ref() };
    [read, write].into_iter().flatten().any(|event| event.timedout() != 0)
}

/// TLS sessions are not kept: backends of different tools share nothing.
unsafe extern "C" fn set_session(_: *mut ngx_peer_connection_t, _: *mut c_void) -> ngx_int_t {
    Status::NGX_OK.0
}

unsafe extern "C" fn save_session(_: *mut ngx_peer_connection_t, _: *mut c_void) {}

impl Peers {
    /// Before another backend is asked: goes on with the record as it is by now. What it had may be another tenant's.
    fn renew(&mut self) {
        // SAFETY: the request is there as long as its peers.
        let Some(newer) = (unsafe { resolve_now(self.request) }).filter(|newer| !ptr::eq(*newer, self.route)) else {
            return;
        };
        // SAFETY: as above.
        unsafe { newer.choose_first(self.request) };
        let same = |bits: u64| moved_bits(bits, self.route.endpoints(), newer.endpoints());
        let (tried, stale) = (same(self.tried), same(self.stale));
        (self.tried, self.stale) = (tried | unusable(newer.endpoints(), self.has_tls), stale);
        self.route = newer;
    }

    /// The backend to ask.
    #[inline(never)]
    fn choose(&mut self) -> Option<usize> {
        if self.is_asked {
            self.renew();
        }
        let admits = |endpoint: &Endpoint| match (self.health_key(endpoint), self.health()) {
            (Some(key), Some(health)) => health.admits(key, now_seconds(), self.conf.health),
            _ => true,
        };
        let chosen = self.route.choose(self.tried, admits);
        if chosen.is_some() || self.stale == 0 {
            return chosen;
        }
        self.tried &= !self.stale;
        self.stale = 0;
        self.route.choose(self.tried, |_| true)
    }

    /// Has nginx speak to the chosen backend with or without TLS.
    fn speak(&self, scheme: Scheme) {
        // nginx has a reference to the upstream's peer, so none is made to the whole.
        // SAFETY: the upstream is there as long as its peers.
        unsafe { ngx_http_upstream_t::set_ssl_raw(self.upstream, (scheme == Scheme::Https).into()) };
        // SAFETY: as above.
        let schema = unsafe { &mut (*self.upstream).schema };
        // SAFETY: the configuration's text, or one of those below.
        if unsafe { pool::bytes(*schema) }.starts_with(b"http") {
            // For the log.
            *schema = pool::string(if scheme == Scheme::Https { b"https://" } else { b"http://" });
        }
    }

    /// Gives `pc` a kept connection to the chosen backend, if there is one for this request.
    #[inline(always)]
    fn take_kept(&self, pc: &mut ngx_peer_connection_t) -> Option<Taken> {
        let keepalive = self.conf.keepalive.as_ref().filter(|_| !self.needs_new)?;
        // SAFETY: the request is there as long as its peers.
        let request = unsafe { &*self.request };
        // SAFETY: the upstream is there as long as its peers.
        let conf = unsafe { (*self.upstream).conf };
        // SAFETY: it has the settings of the location that made it.
        let next_upstream = unsafe { (*conf).next_upstream };
        keepalive.take(self.key.as_ref()?, pc, &Request::of(request, next_upstream))
    }

    /// Whether anything came back from the backend.
    fn has_answered(&self) -> bool {
        // SAFETY: the upstream is there as long as its peers.
        let Some(upstream) = (unsafe { self.upstream.as_ref() }) else { return false };
        // SAFETY: nginx's own record of the attempt.
        unsafe { upstream.state.as_ref() }.is_some_and(|state| state.bytes_received > 0)
    }

    /// Logs why the request has no backend to ask.
    #[cold]
    fn report_unusable(&self, pc: &ngx_peer_connection_t) {
        if !self.is_asked {
            // SAFETY: the connection's own log.
            unsafe { log::write(pc.log, NGX_LOG_ERR, &self.describe_unusable()) };
        }
    }

    /// Why there is nobody to ask.
    fn describe_unusable(&self) -> String {
        let of_tool = of_tool(self.route);
        match self.route.endpoints().get(self.route.chosen.get()) {
            Some(endpoint @ Endpoint { destination: Destination::Name(..), .. }) => format!(
                "urlproxy_peers: backend {endpoint}{of_tool} is a name, which only \"proxy_pass $urlproxy_backend\" with a resolver can use"
            ),
            Some(endpoint) => {
                // SAFETY: the upstream is there as long as its peers.
                let conf = unsafe { (*self.upstream).conf };
                // SAFETY: it has the settings of the location that made it, which name the module that speaks.
                let module = unsafe { conf.as_ref() }.map_or(&b"proxy"[..], |conf| unsafe { pool::bytes(conf.module) });
                let expected = expected_scheme(module);
                let module = module.escape_ascii();
                format!(
                    "urlproxy_peers: backend {endpoint}{of_tool} is not of the scheme that \"{module}_pass\" says, expected {expected}"
                )
            }
            None => {
                format!("urlproxy_peers: the route{of_tool} was withdrawn while the request waited")
            }
        }
    }

    fn health_key(&self, endpoint: &Endpoint) -> Option<HealthKey> {
        match endpoint.destination {
            Destination::Addr(addr) => Some(HealthKey::new(self.route.owner, endpoint.scheme, addr)),
            Destination::Name(..) => None,
        }
    }

    fn health(&self) -> Option<Health<'static>> {
        self.route.table.table.get().map(|table| table.health())
    }

    /// Has nginx ask this backend, on a kept connection if there is one. Puts address and name where nginx finds them as
    /// long as the request lives. `None` when memory has run out.
    #[inline(always)]
    fn place(&mut self, pc: &mut ngx_peer_connection_t, scheme: Scheme, addr: &SocketAddr) -> Option<()> {
        let (backend, shared) = ((scheme, addr), &self.conf.shared);
        // SAFETY: request and upstream are there as long as its peers, and the backend was chosen just before.
        let kept_for = unsafe { KeptFor::of(self.request, self.upstream, self.route.owner, backend, shared) }?;
        if self.conf.keepalive.is_some() {
            self.key = Some(Key::new(addr, kept_for.record, kept_for.session));
        }
        let more = if self.is_asked {
            // SAFETY: a request has a pool.
            let pool = unsafe { (*self.request).pool };
            // SAFETY: the request's pool.
            Some(unsafe { pool::place(pool, MaybeUninit::uninit) }?)
        } else {
            None
        };
        let taken = self.take_kept(pc);
        self.is_asked = true;
        let chosen = more.unwrap_or(&mut self.first);
        let text = match taken {
            Some(Taken { ticket, text }) => {
                self.ticket = Some(ticket);
                *text
            }
            None => AddrText::of(*addr),
        };
        let chosen = chosen.write(Chosen { address: PeerAddress::new(addr, kept_for), text, name: ngx_str_t::empty() });
        chosen.name = pool::string(chosen.text.as_bytes());
        self.text = &raw const chosen.text;
        let address = chosen.address.bytes_mut();
        pc.sockaddr = address.as_mut_ptr().cast();
        pc.socklen = address.len() as u32;
        pc.name = &raw mut chosen.name;
        Some(())
    }
}

/// Seconds of the clock that all workers share and that nobody sets.
fn now_seconds() -> u32 {
    // SAFETY: nginx writes it on this thread.
    let milliseconds = unsafe { ngx_current_msec };
    (milliseconds / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_left_out_and_https_without_tls() {
        let endpoint = |scheme, text: &str| match text.parse() {
            Ok(addr) => Endpoint { scheme, destination: Destination::Addr(addr) },
            Err(_) => Endpoint { scheme, destination: Destination::Name("exec-1", 80) },
        };
        let (http, https) = (Scheme::Http, Scheme::Https);
        let endpoints = [endpoint(http, "10.0.0.1:80"), endpoint(https, "10.0.0.1:443"), endpoint(http, "exec-1")];
        assert_eq!((unusable(&endpoints, false), unusable(&endpoints, true)), (0b110, 0b100));
    }
}
