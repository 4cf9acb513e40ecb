//! `urlproxy_peers`: the peers of an upstream are the backends of the request's route.

use std::ffi::{c_char, c_void};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;
use std::time::Duration;

use nginx_sys::{
    NGX_LOG_ERR, NGX_LOG_WARN, NGX_PEER_FAILED, ngx_command_t, ngx_conf_t, ngx_current_msec, ngx_http_request_t,
    ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_peer_connection_t,
    ngx_pool_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;
use ngx::http::{HttpModuleMainConf, HttpModuleServerConf, NgxHttpUpstreamModule};

use super::addr_text::AddrText;
use super::directive::{self, CONF_ERROR, CONF_OK, DirectiveError};
use super::guard::guarded;
use super::log;
use super::module::Module;
use super::pool;
use super::request::{Destination, Endpoint, RequestRoute, resolve};
use super::units::parse_duration;
use crate::route::{Scheme, choose};
use crate::table::{Health, HealthSettings};

const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;

/// One request's way through its backends.
struct Peers {
    route: &'static RequestRoute,
    settings: HealthSettings,
    pool: *mut ngx_pool_t,
    /// Where the first choice is kept: nearly always the only one.
    first: Chosen,
    upstream: *mut ngx_http_upstream_t,
    /// The backend that is asked.
    at: usize,
    /// A bit for each backend that was asked, or can't be: a name, or not of the scheme that nginx speaks here.
    tried: u64,
    /// A bit for each whose kept connection had gone stale: it may be asked again, on a new one.
    stale: u64,
}

/// The address and the name of a chosen backend: nginx reads both again when it logs.
struct Chosen {
    address: RawAddress,
    text: AddrText,
    name: ngx_str_t,
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct RawAddress {
    bytes: [u8; 32],
    len: usize,
}

/// What follows `urlproxy_peers`, as nginx's `server` takes it.
fn parse_health(args: &[&str]) -> Result<HealthSettings, DirectiveError> {
    let mut settings = HealthSettings::default();
    for arg in args {
        let invalid = || DirectiveError::Invalid {
            directive: "urlproxy_peers",
            what: "parameter",
            value: (*arg).into(),
            example: "max_fails=1 fail_timeout=10s",
        };
        match arg.split_once('=').ok_or_else(invalid)? {
            ("max_fails", value) => settings.max_fails = value.parse().map_err(|_| invalid())?,
            ("fail_timeout", value) => {
                let is_whole = |time: &Duration| time.as_secs() > 0 && time.subsec_nanos() == 0;
                settings.fail_timeout = parse_duration(value).filter(is_whole).ok_or_else(invalid)?;
            }
            _ => return Err(invalid()),
        }
    }
    Ok(settings)
}

/// `urlproxy_peers [max_fails=N] [fail_timeout=TIME];`
pub(super) unsafe extern "C" fn urlproxy_peers(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    _: *mut c_void,
) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes its parser, inside an upstream block.
        let Some(upstream) = NgxHttpUpstreamModule::server_conf_mut(unsafe { &*cf }) else { return CONF_ERROR };
        let refuse = |text: &str| {
            // SAFETY: as above.
            unsafe { directive::refuse(cf, &DirectiveError::Other(text.into())) }
        };
        if upstream.peer.init_upstream.is_some() {
            return refuse(
                "\"urlproxy_peers\" must be the first in its upstream, before \"keepalive\" and instead of other methods",
            );
        }
        let mut settings = HealthSettings::default();
        let parse = |args: &[&str]| parse_health(args).map(|parsed| settings = parsed);
        // SAFETY: as above.
        if unsafe { directive::apply(cf, parse) } != CONF_OK {
            return CONF_ERROR;
        }
        // SAFETY: as above.
        let conf_pool = unsafe { (*cf).pool };
        // SAFETY: the configuration's pool.
        let Some(settings) = (unsafe { pool::place(conf_pool, || settings) }) else { return CONF_ERROR };
        upstream.peer.data = ptr::from_mut(settings).cast();
        upstream.peer.init_upstream = Some(init_upstream);
        // SAFETY: as above.
        let Some(main) = Module::main_conf_mut(unsafe { &*cf }) else { return CONF_ERROR };
        main.upstreams.push(upstream);
        // nginx wants a server in each upstream; this one stands for whatever the table says.
        // SAFETY: all-zero is how nginx makes these itself.
        let server = unsafe { std::mem::zeroed::<ngx_http_upstream_server_t>() };
        // SAFETY: the upstream's servers are an array of this type.
        let pushed = unsafe { pool::push(upstream.servers, ngx_http_upstream_server_t { down: 1, ..server }) };
        if pushed.is_some() { CONF_OK } else { CONF_ERROR }
    })
}

unsafe extern "C" fn init_upstream(cf: *mut ngx_conf_t, upstream: *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the upstream whose block it has read.
        let upstream = unsafe { &mut *upstream };
        // SAFETY: the upstream's servers are an array.
        let servers = unsafe { upstream.servers.as_ref() }.map_or(0, |servers| servers.nelts);
        let wrong = if servers > 1 {
            Some("\"urlproxy_peers\" takes its servers from the table, remove the \"server\" lines")
        } else if !upstream.shm_zone.is_null() {
            Some("\"urlproxy_peers\" keeps its state in the table, remove the \"zone\" line")
        } else {
            None
        };
        if let Some(text) = wrong {
            // SAFETY: nginx passes its parser.
            unsafe { directive::refuse(cf, &DirectiveError::Other(text.into())) };
            return Status::NGX_ERROR.0;
        }
        upstream.peer.init = Some(init_peer);
        Status::NGX_OK.0
    })
}

unsafe extern "C" fn init_peer(r: *mut ngx_http_request_t, us: *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the request it is working on.
        let request = unsafe { &*r };
        // SAFETY: as above.
        let route = unsafe { resolve(r) };
        let Some(route) = route else {
            let text = "urlproxy_peers: the request has no route, its location needs \"urlproxy\"";
            // SAFETY: a request has a connection.
            let connection = unsafe { &*request.connection };
            // SAFETY: the connection's own log.
            unsafe { log::write(connection.log, NGX_LOG_ERR, text) };
            return Status::NGX_ERROR.0;
        };
        // SAFETY: nginx has made the request's upstream.
        let Some(upstream) = (unsafe { request.upstream.as_mut() }) else { return Status::NGX_ERROR.0 };
        // SAFETY: nginx passes the upstream.
        let settings = unsafe { (*us).peer.data };
        // SAFETY: `urlproxy_peers` has put them there.
        let settings = unsafe { *settings.cast::<HealthSettings>() };
        let unusable = unusable(route.endpoints(), upstream.ssl() != 0);
        let peers = || Peers {
            route,
            settings,
            pool: request.pool,
            first: Chosen::NONE,
            upstream,
            at: 0,
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
        let chosen = peers.choose();
        let endpoint = chosen.and_then(|at| peers.route.endpoints().get(at).copied());
        let (Some(at), Some(Endpoint { scheme, destination: Destination::Addr(addr) })) = (chosen, endpoint) else {
            if peers.at == 0 && peers.first.address.len == 0 {
                // SAFETY: the connection's own log.
                unsafe { log::write(pc.log, NGX_LOG_ERR, &peers.describe_unusable()) };
            }
            return Status::NGX_BUSY.0;
        };
        peers.tried |= 1 << at;
        peers.at = at;
        peers.route.chosen.set(at);
        let Some(chosen) = peers.place(scheme, addr) else { return Status::NGX_ERROR.0 };
        pc.sockaddr = chosen.address.bytes.as_mut_ptr().cast();
        pc.socklen = chosen.address.len as u32;
        pc.name = &raw mut chosen.name;
        pc.set_cached(0);
        pc.connection = std::ptr::null_mut();
        Status::NGX_OK.0
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
        if has_failed && pc.cached() != 0 && !peers.has_answered() && !has_timed_out(pc) {
            // Not the backend's failure: it had closed a connection that was kept for it.
            peers.stale |= 1 << peers.at;
            return;
        }
        let endpoints = peers.route.endpoints();
        let addr = endpoints.get(peers.at).filter(|_| endpoints.len() > 1).map(|e| e.destination);
        let (Some(Destination::Addr(addr)), Some(health)) = (addr, peers.health()) else { return };
        if !has_failed {
            // A client that went away says nothing about the backend.
            if peers.has_answered() {
                health.answered(addr);
            }
        } else if health.failed(addr, now_seconds(), peers.settings) {
            let text = format!("urlproxy_peers: backend {addr}{} is out for a while", whose(peers.route));
            // SAFETY: the connection's own log.
            unsafe { log::write(pc.log, NGX_LOG_WARN, &text) };
        }
    });
}

/// Whose backends they are, for the log; a domain's are known by nginx's own `host:`.
fn whose(route: &RequestRoute) -> String {
    match route.tool {
        b"" => String::new(),
        tool => format!(" of tool \"{}\"", tool.escape_ascii()),
    }
}

/// A bit for each backend that this request can't ask.
fn unusable(endpoints: &[Endpoint], is_tls: bool) -> u64 {
    let usable = |endpoint: &Endpoint| {
        (endpoint.scheme == Scheme::Https) == is_tls && matches!(endpoint.destination, Destination::Addr(_))
    };
    if let [single] = endpoints {
        return u64::from(!usable(single));
    }
    endpoints.iter().enumerate().filter(|(_, e)| !usable(e)).fold(0, |bits, (at, _)| bits | 1 << at)
}

fn has_timed_out(pc: &ngx_peer_connection_t) -> bool {
    // SAFETY: the connection is there until nginx is done with the peer.
    let Some(connection) = (unsafe { pc.connection.as_ref() }) else { return false };
    // SAFETY: a connection has its events.
    unsafe { connection.read.as_ref() }.is_some_and(|read| read.timedout() != 0)
}

/// TLS sessions are not kept: backends of different tools share nothing.
unsafe extern "C" fn set_session(_: *mut ngx_peer_connection_t, _: *mut c_void) -> ngx_int_t {
    Status::NGX_OK.0
}

unsafe extern "C" fn save_session(_: *mut ngx_peer_connection_t, _: *mut c_void) {}

impl Peers {
    fn choose(&mut self) -> Option<usize> {
        let (endpoints, turn) = (self.route.endpoints(), self.route.chosen.get());
        let is_failed = |at: usize| match (endpoints.get(at).map(|e| e.destination), self.health()) {
            (Some(Destination::Addr(addr)), Some(health)) => health.is_failed(addr, now_seconds(), self.settings),
            _ => false,
        };
        let chosen = choose(endpoints.len(), turn, self.tried, is_failed);
        if chosen.is_some() || self.stale == 0 {
            return chosen;
        }
        self.tried &= !self.stale;
        self.stale = 0;
        choose(endpoints.len(), turn, self.tried, |_| false)
    }

    /// Whether anything came back from the backend.
    fn has_answered(&self) -> bool {
        // SAFETY: the upstream is there as long as its peers.
        let Some(upstream) = (unsafe { self.upstream.as_ref() }) else { return false };
        // SAFETY: nginx's own record of the attempt.
        unsafe { upstream.state.as_ref() }.is_some_and(|state| state.bytes_received > 0)
    }

    /// Why there is nobody to ask.
    fn describe_unusable(&self) -> String {
        let whose = whose(self.route);
        match self.route.endpoint() {
            Some(endpoint @ Endpoint { destination: Destination::Name(..), .. }) => format!(
                "urlproxy_peers: backend {endpoint}{whose} is a name, which only \"proxy_pass $urlproxy_backend\" with a resolver can use"
            ),
            Some(endpoint) => format!(
                "urlproxy_peers: backend {endpoint}{whose} is not of the scheme that \"proxy_pass\" says, expected \"$urlproxy_scheme://\""
            ),
            None => format!("urlproxy_peers: there is no backend{whose}, and the request was not refused"),
        }
    }

    fn health(&self) -> Option<Health<'static>> {
        self.route.table.table.get().map(|table| table.health())
    }

    /// Puts address and name where nginx finds them as long as the request lives.
    fn place(&mut self, scheme: Scheme, addr: SocketAddr) -> Option<&mut Chosen> {
        let owner = match scheme {
            Scheme::Http => 0,
            Scheme::Https => self.route.counters.map_or(1, |(_, ticket)| ticket),
        };
        let chosen = if self.first.address.len == 0 {
            &mut self.first
        } else {
            // SAFETY: the request's pool.
            unsafe { pool::place(self.pool, || Chosen::NONE) }?
        };
        chosen.address.set(addr, owner);
        chosen.text.set(addr);
        chosen.name = pool::string(chosen.text.as_bytes());
        Some(chosen)
    }
}

impl RawAddress {
    /// The address as the kernel wants it. `owner` goes where neither kernel looks (`sin_zero`, `sin6_flowinfo`):
    /// nginx compares all bytes before it takes a kept connection, so that connections with TLS are never shared
    /// with those without, nor between tools.
    fn set(&mut self, addr: SocketAddr, owner: u64) {
        let bytes = &mut self.bytes;
        let owner = owner.to_ne_bytes();
        let (family, len) = match addr {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                bytes[8..16].copy_from_slice(&owner);
                (nginx_sys::AF_INET, V4_BYTES)
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&owner[..4]);
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                (nginx_sys::AF_INET6, V6_BYTES)
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        self.len = len;
    }
}

impl Chosen {
    const NONE: Self =
        Self { address: RawAddress { bytes: [0; 32], len: 0 }, text: AddrText::EMPTY, name: ngx_str_t::empty() };
}

/// A `sockaddr_in` or `sockaddr_in6` read back; `None` for other families.
pub(super) fn parse_sockaddr(raw: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = raw.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u32::from(u16::from_ne_bytes(*family)) {
        nginx_sys::AF_INET => Some(SocketAddr::new(Ipv4Addr::from(*rest.first_chunk::<4>()?).into(), port)),
        nginx_sys::AF_INET6 => {
            let ip = rest.get(4..)?.first_chunk::<16>()?;
            Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), port))
        }
        _ => None,
    }
}

/// Seconds of the clock that all workers share and that nobody sets.
fn now_seconds() -> u64 {
    // SAFETY: nginx writes it on this thread.
    unsafe { ngx_current_msec as u64 / 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(addr: SocketAddr, owner: u64) -> RawAddress {
        let mut raw = Chosen::NONE.address;
        raw.set(addr, owner);
        raw
    }

    #[test]
    fn health_is_set_as_for_a_server_of_nginx() {
        let settings = |max_fails, seconds| HealthSettings { max_fails, fail_timeout: Duration::from_secs(seconds) };
        assert_eq!(parse_health(&[]), Ok(settings(1, 10)));
        assert_eq!(parse_health(&["fail_timeout=1m", "max_fails=3"]), Ok(settings(3, 60)));
        assert_eq!(parse_health(&["max_fails=0"]), Ok(settings(0, 10)));
        for wrong in
            ["max_fails", "max_fails=-1", "max_fails=65536", "fail_timeout=500ms", "fail_timeout=0", "weight=2"]
        {
            let want = format!(
                r#""urlproxy_peers" invalid parameter "{wrong}", expected e.g. "max_fails=1 fail_timeout=10s""#
            );
            assert_eq!(parse_health(&[wrong]).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn addresses_are_written_as_the_kernel_reads_them() {
        for text in ["10.1.2.3:8000", "[fd00::7]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            let raw = raw(addr, 0);
            assert_eq!(parse_sockaddr(&raw.bytes[..raw.len]), Some(addr));
        }
    }

    #[test]
    fn names_and_the_other_scheme_are_left_out() {
        let endpoint = |scheme, text: &str| match text.parse() {
            Ok(addr) => Endpoint { scheme, destination: Destination::Addr(addr) },
            Err(_) => Endpoint { scheme, destination: Destination::Name("exec-1", 80) },
        };
        let (http, https) = (Scheme::Http, Scheme::Https);
        let endpoints = [endpoint(http, "10.0.0.1:80"), endpoint(https, "10.0.0.1:443"), endpoint(http, "exec-1")];
        assert_eq!((unusable(&endpoints, false), unusable(&endpoints, true)), (0b110, 0b101));
    }

    #[test]
    fn kept_connections_of_different_owners_differ_and_lead_to_the_same_place() {
        for text in ["10.1.2.3:8000", "[fd00::7]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            let (one, other) = (raw(addr, 0), raw(addr, 7));
            assert_ne!(one.bytes[..one.len], other.bytes[..other.len]);
            assert_eq!(parse_sockaddr(&other.bytes[..other.len]), Some(addr));
        }
    }
}
