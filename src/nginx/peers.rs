//! `urlproxy_peers`: the peers of an upstream are the backends of the request's route.

use std::ffi::{c_char, c_void};
use std::net::{IpAddr, SocketAddr};
use std::ptr;
use std::time::Duration;

use ipnet::IpNet;
use nginx_sys::{
    NGX_LOG_ERR, NGX_LOG_WARN, NGX_PEER_FAILED, ngx_command_t, ngx_conf_t, ngx_current_msec, ngx_http_request_t,
    ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_peer_connection_t,
    ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;
use ngx::http::{HttpModuleMainConf, HttpModuleServerConf, NgxHttpUpstreamModule};

use super::addr_text::AddrText;
use super::directive::{self, CONF_ERROR, CONF_OK, DirectiveError};
use super::endpoint::{Destination, Endpoint};
use super::guard::guarded;
use super::kept::KeptFor;
use super::log;
use super::module::Module;
use super::pool;
use super::request::{RequestRoute, resolve_now};
use super::sockaddr::PeerAddress;
use super::units::parse_duration;
use crate::route::Scheme;
use crate::table::{Health, HealthKey, HealthSettings};

/// One request's way through its backends.
struct Peers {
    route: &'static RequestRoute,
    settings: Settings,
    request: *mut ngx_http_request_t,
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
    address: PeerAddress,
    text: AddrText,
    name: ngx_str_t,
}

/// What follows `urlproxy_peers`.
#[derive(Clone, Copy)]
struct Settings {
    health: HealthSettings,
    /// Networks whose plain connections any record may use.
    shared: &'static [IpNet],
}

/// What follows `urlproxy_peers`: as nginx's `server` takes it, and the networks.
fn parse_settings(args: &[&str]) -> Result<(HealthSettings, Vec<IpNet>), DirectiveError> {
    let (mut health, mut shared) = (HealthSettings::default(), Vec::new());
    for arg in args {
        let invalid = || DirectiveError::Invalid {
            directive: "urlproxy_peers",
            what: "parameter",
            value: (*arg).into(),
            example: "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8",
        };
        match arg.split_once('=').ok_or_else(invalid)? {
            ("max_fails", value) => health.max_fails = value.parse().map_err(|_| invalid())?,
            ("fail_timeout", value) => {
                let is_whole = |time: &Duration| time.as_secs() > 0 && time.subsec_nanos() == 0;
                health.fail_timeout = parse_duration(value).filter(is_whole).ok_or_else(invalid)?;
            }
            ("shared", value) => {
                for network in value.split(',') {
                    let network = network.parse().or_else(|_| network.parse().map(|ip: IpAddr| ip.into()));
                    shared.push(network.map(|network: IpNet| network.trunc()).map_err(|_| invalid())?);
                }
            }
            _ => return Err(invalid()),
        }
    }
    Ok((health, shared))
}

/// `urlproxy_peers [max_fails=N] [fail_timeout=TIME] [shared=CIDR,...];`
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
        let (mut health, mut shared) = (HealthSettings::default(), Vec::new());
        let parse = |args: &[&str]| parse_settings(args).map(|parsed| (health, shared) = parsed);
        // SAFETY: as above.
        if unsafe { directive::apply(cf, parse) } != CONF_OK {
            return CONF_ERROR;
        }
        // SAFETY: as above.
        let conf_pool = unsafe { (*cf).pool };
        // SAFETY: the configuration's pool.
        let Some(shared) = (unsafe { pool::copy(conf_pool, &shared) }) else { return CONF_ERROR };
        // SAFETY: as above.
        let Some(settings) = (unsafe { pool::place(conf_pool, || Settings { health, shared }) }) else {
            return CONF_ERROR;
        };
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
        let settings = unsafe { (*us).peer.data };
        // SAFETY: `urlproxy_peers` has put them there.
        let settings = unsafe { *settings.cast::<Settings>() };
        let unusable = unusable(route.endpoints(), upstream.ssl() != 0);
        let peers =
            || Peers { route, settings, request: r, first: Chosen::NONE, upstream, at: 0, tried: unusable, stale: 0 };
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
        if peers.first.address.is_set() {
            peers.renew();
        }
        let chosen = peers.choose();
        let endpoint = chosen.and_then(|at| peers.route.endpoints().get(at).copied());
        let (Some(at), Some(Endpoint { scheme, destination: Destination::Addr(addr) })) = (chosen, endpoint) else {
            if peers.at == 0 && !peers.first.address.is_set() {
                // SAFETY: the connection's own log.
                unsafe { log::write(pc.log, NGX_LOG_ERR, &peers.describe_unusable()) };
            }
            return Status::NGX_BUSY.0;
        };
        peers.tried |= 1 << at;
        peers.at = at;
        peers.route.chosen.set(at);
        let Some(chosen) = peers.place(scheme, addr) else { return Status::NGX_ERROR.0 };
        let address = chosen.address.bytes_mut();
        pc.sockaddr = address.as_mut_ptr().cast();
        pc.socklen = address.len() as u32;
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
        let Some(endpoint) = endpoints.get(peers.at).filter(|_| endpoints.len() > 1) else { return };
        let (Some(key), Some(health)) = (peers.health_key(endpoint), peers.health()) else { return };
        if !has_failed {
            // A client that went away says nothing about the backend.
            if peers.has_answered() {
                health.answered(key);
            }
        } else if health.failed(key, now_seconds(), peers.settings.health) {
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

/// How a location would have to say that it speaks to backends of this scheme.
fn expected_scheme(module: &[u8], scheme: Scheme) -> &'static str {
    match (module, scheme) {
        (b"grpc", Scheme::Http) => "\"grpc://\"",
        (b"grpc", Scheme::Https) => "\"grpcs://\"",
        (b"uwsgi", Scheme::Http) => "\"uwsgi://\"",
        (b"uwsgi", Scheme::Https) => "\"suwsgi://\"",
        (b"fastcgi" | b"scgi", _) => "an http backend: it has no TLS",
        _ => "\"$urlproxy_scheme://\"",
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
    unsafe { connection.read.as_ref() }.is_some_and(|read| read.timedout() != 0)
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
        // SAFETY: the upstream is there as long as its peers.
        let is_tls = unsafe { (*self.upstream).ssl() } != 0;
        let same = |bits: u64| moved_bits(bits, self.route.endpoints(), newer.endpoints());
        let (tried, stale) = (same(self.tried), same(self.stale));
        (self.tried, self.stale) = (tried | unusable(newer.endpoints(), is_tls), stale);
        self.route = newer;
    }

    fn choose(&mut self) -> Option<usize> {
        let admits = |endpoint: &Endpoint| match (self.health_key(endpoint), self.health()) {
            (Some(key), Some(health)) => health.admits(key, now_seconds(), self.settings.health),
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

    /// Whether anything came back from the backend.
    fn has_answered(&self) -> bool {
        // SAFETY: the upstream is there as long as its peers.
        let Some(upstream) = (unsafe { self.upstream.as_ref() }) else { return false };
        // SAFETY: nginx's own record of the attempt.
        unsafe { upstream.state.as_ref() }.is_some_and(|state| state.bytes_received > 0)
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
                let expected = expected_scheme(module, endpoint.scheme);
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

    /// Puts address and name where nginx finds them as long as the request lives.
    fn place(&mut self, scheme: Scheme, addr: SocketAddr) -> Option<&mut Chosen> {
        let (backend, shared) = ((scheme, addr.ip()), self.settings.shared);
        // SAFETY: request and upstream are there as long as its peers, and the backend was chosen just before.
        let kept_for = unsafe { KeptFor::of(self.request, self.upstream, self.route.owner, backend, shared) }?;
        let chosen = if self.first.address.is_set() {
            // SAFETY: a request has a pool.
            let pool = unsafe { (*self.request).pool };
            // SAFETY: the request's pool.
            unsafe { pool::place(pool, || Chosen::NONE) }?
        } else {
            &mut self.first
        };
        chosen.address.set(addr, kept_for);
        chosen.text.set(addr);
        chosen.name = pool::string(chosen.text.as_bytes());
        Some(chosen)
    }
}

impl Chosen {
    const NONE: Self = Self { address: PeerAddress::NONE, text: AddrText::EMPTY, name: ngx_str_t::empty() };
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
    fn parameters_are_those_of_a_server_of_nginx_and_networks() {
        let settings =
            |max_fails, seconds| (HealthSettings { max_fails, fail_timeout: Duration::from_secs(seconds) }, vec![]);
        assert_eq!(parse_settings(&[]), Ok(settings(1, 10)));
        assert_eq!(parse_settings(&["fail_timeout=1m", "max_fails=3"]), Ok(settings(3, 60)));
        assert_eq!(parse_settings(&["max_fails=0"]), Ok(settings(0, 10)));
        let networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
        assert_eq!(parse_settings(&["shared=10.1.0.0/8,fd00::/8", "shared=192.0.2.1"]).unwrap().1, networks);
        for wrong in [
            "max_fails",
            "max_fails=-1",
            "max_fails=65536",
            "fail_timeout=500ms",
            "fail_timeout=0",
            "weight=2",
            "shared=",
            "shared=10.0.0.0/33",
            "shared=10.0.0.1,",
        ] {
            let want = format!(
                r#""urlproxy_peers" invalid parameter "{wrong}", expected e.g. "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8""#
            );
            assert_eq!(parse_settings(&[wrong]).unwrap_err().to_string(), want);
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
}
