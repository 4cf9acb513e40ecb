//! `urlproxy_peers`: the peers of an upstream are the backends of the request's route.

use std::net::SocketAddr;
use std::ptr;

use nginx_sys::{NGX_LOG_ERR, NGX_LOG_WARN};
use ngx::core::Status;

use super::endpoint::{Destination, Endpoint};
use super::resolve::resolve_now;
use super::reuse_key::ReuseKey;
use super::route::RequestRoute;
use crate::keepalive::{BackendHandle, Key};
use crate::nginx::conf::main::MainConf;
use crate::nginx::conf::upstream::UpstreamConf;
use crate::nginx::ffi::addr_text::AddrText;
use crate::nginx::ffi::config_error::ConfigError;
use crate::nginx::ffi::peer::{Balancer, PeerConnection};
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::timer::now_milliseconds;
use crate::nginx::ffi::upstream::Upstream;
use crate::nginx::ffi::upstream_block::UpstreamBlock;
use crate::route::Scheme;
use crate::table::{Health, HealthKey};

/// The error for an upstream with both keepalive directives.
pub(in crate::nginx) const NO_OTHER_KEEPALIVE: &str = "\"keepalive\" and \"urlproxy_keepalive\" are mutually \
     exclusive, expected \"urlproxy_peers\" followed by one of them";

/// Backend selection for one request.
pub(in crate::nginx) struct Peers<'r> {
    route: &'r RequestRoute<'r>,
    conf: &'r UpstreamConf,
    request: Request<'r>,
    upstream: Upstream<'r>,
    has_attempted: bool,
    /// Whether the location can use TLS. If so, the scheme of each backend decides.
    has_tls: bool,
    /// A kept connection was stale: further attempts open new connections.
    must_open_new: bool,
    /// Index of the current backend.
    current: usize,
    /// Reuse key of the current connection.
    key: Option<Key>,
    /// Set if the current connection is a kept one.
    handle: Option<BackendHandle>,
    /// A bit for each backend that was tried or is unusable: a name, or a scheme that the location cannot use.
    tried: u64,
    /// A bit for each backend with a stale kept connection: it may be tried again, on a new connection.
    stale: u64,
}

/// Balances over the backends of the request's route.
pub(in crate::nginx) struct RouteBalancer;

impl Balancer for RouteBalancer {
    type Conf = UpstreamConf;
    type Peers<'r> = Peers<'r>;

    fn configure<'m>(main: &'m MainConf, block: &UpstreamBlock<'_>) -> Result<&'m UpstreamConf, ConfigError> {
        let own = main.upstream(block.id()).ok_or("the upstream has no \"urlproxy_peers\"")?;
        if block.has_servers() {
            Err("\"urlproxy_peers\" takes its servers from the table, remove the \"server\" lines".into())
        } else if block.has_zone() {
            Err("\"urlproxy_peers\" keeps its state in the table, remove the \"zone\" line".into())
        } else if own.keepalive.is_some() && !block.is_balanced_by::<Self>() {
            Err(NO_OTHER_KEEPALIVE.into())
        } else {
            Ok(own)
        }
    }

    #[inline(always)]
    fn init<'r>(request: Request<'r>, upstream: Upstream<'r>, conf: &'r UpstreamConf) -> Option<(Peers<'r>, usize)> {
        let Some(route) = resolve_now(request) else {
            let text = "urlproxy_peers: location has no \"urlproxy\"; request has no route and fails";
            request.log().write(NGX_LOG_ERR, text);
            return None;
        };
        route.choose_first(request);
        let has_tls = upstream.has_tls();
        let unusable = unusable(route.endpoints(), has_tls);
        let peers = Peers {
            route,
            conf,
            request,
            upstream,
            has_attempted: false,
            has_tls,
            must_open_new: false,
            current: 0,
            key: None,
            handle: None,
            tried: unusable,
            stale: 0,
        };
        Some((peers, route.endpoints().len() - unusable.count_ones() as usize))
    }

    #[inline(always)]
    fn get<'r>(peers: &mut Peers<'r>, connection: &mut PeerConnection<'r>) -> Status {
        let at = match peers.route.endpoints() {
            // The usual case.
            [_] if !peers.has_attempted => (peers.tried == 0).then_some(0),
            _ => peers.choose(),
        };
        let endpoint = at.and_then(|at| peers.route.endpoints().get(at));
        let (Some(at), Some(Endpoint { scheme, destination: Destination::Addr(addr) })) = (at, endpoint) else {
            peers.report_unusable(connection);
            return Status::NGX_BUSY;
        };
        peers.tried |= 1 << at;
        peers.current = at;
        peers.route.chosen.set(at);
        if peers.has_tls {
            peers.upstream.set_tls(*scheme == Scheme::Https);
        }
        connection.clear();
        peers.connect(connection, *scheme, addr).unwrap_or(Status::NGX_ERROR)
    }

    #[inline(always)]
    fn free<'r>(peers: &mut Peers<'r>, connection: &mut PeerConnection<'r>, has_failed: bool) {
        let has_answered = || peers.upstream.has_answered();
        let was_closed = has_failed && connection.is_kept() && !has_answered() && !connection.has_timed_out();
        if let (Some(keepalive), Some(key)) = (&peers.conf.keepalive, &peers.key) {
            keepalive.keep(key, peers.handle.take(), connection, peers.upstream, has_failed);
        }
        if was_closed {
            // Not a failure of the backend: it had already closed the kept connection.
            peers.stale |= 1 << peers.current;
            peers.must_open_new = true;
            return;
        }
        let endpoints = peers.route.endpoints();
        let Some(endpoint) = endpoints.get(peers.current).filter(|_| endpoints.len() > 1) else { return };
        let (Some(key), Some(health)) = (peers.health_key(endpoint), peers.health()) else { return };
        if !has_failed {
            // Without a response, for example after the client has gone, the health of the backend is unknown.
            if peers.upstream.has_answered() {
                health.answered(key);
            }
        } else if health.failed(key, now_seconds(), peers.conf.health) {
            let (seconds, tool) = (peers.conf.health.fail_timeout.as_secs(), tool_field(peers.route));
            let text = format!("urlproxy_peers: backend failed; unavailable for {seconds} s, backend={endpoint}{tool}");
            connection.log().write(NGX_LOG_WARN, &text);
        }
    }
}

/// The log field of the tool that has the backends. In domain mode nginx's own `host:` names the domain.
pub(super) fn tool_field(route: &RequestRoute<'_>) -> String {
    match route.tool {
        b"" => String::new(),
        tool => format!(" tool=\"{}\"", tool.escape_ascii()),
    }
}

/// What the location needs instead, to reach https backends.
fn expected_scheme(module: &[u8]) -> &'static str {
    match module {
        b"grpc" => "\"grpcs://\"",
        b"uwsgi" => "\"suwsgi://\"",
        b"fastcgi" | b"scgi" => "an http backend (it has no TLS)",
        _ => "\"https://\" (serves both schemes)",
    }
}

/// A bit for each backend that this request cannot use.
fn unusable(endpoints: &[Endpoint<'_>], has_tls: bool) -> u64 {
    let usable = |endpoint: &Endpoint<'_>| {
        (has_tls || endpoint.scheme == Scheme::Http) && matches!(endpoint.destination, Destination::Addr(_))
    };
    if let [single] = endpoints {
        return u64::from(!usable(single));
    }
    endpoints.iter().enumerate().filter(|(_, e)| !usable(e)).fold(0, |bits, (at, _)| bits | 1 << at)
}

/// Translates a bit set over the backends of the old route to the newer route.
fn remap_bits(bits: u64, old: &[Endpoint<'_>], newer: &[Endpoint<'_>]) -> u64 {
    let has_bit =
        |endpoint: &Endpoint<'_>| old.iter().position(|other| other == endpoint).is_some_and(|at| bits >> at & 1 == 1);
    newer.iter().enumerate().filter(|(_, endpoint)| has_bit(endpoint)).fold(0, |bits, (at, _)| bits | 1 << at)
}

impl<'r> Peers<'r> {
    /// Before the next attempt: switches to the current record. The address of an old backend may belong to another tenant.
    fn refresh_route(&mut self) {
        let Some(newer) = resolve_now(self.request).filter(|newer| !ptr::eq(*newer, self.route)) else { return };
        newer.choose_first(self.request);
        let same = |bits: u64| remap_bits(bits, self.route.endpoints(), newer.endpoints());
        let (tried, stale) = (same(self.tried), same(self.stale));
        (self.tried, self.stale) = (tried | unusable(newer.endpoints(), self.has_tls), stale);
        self.route = newer;
    }

    /// Chooses the backend of the next attempt.
    #[inline(never)]
    fn choose(&mut self) -> Option<usize> {
        if self.has_attempted {
            self.refresh_route();
        }
        let admits = |endpoint: &Endpoint<'_>| match (self.health_key(endpoint), self.health()) {
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

    /// Connects to a backend, on a kept connection if there is one. `None` if out of memory.
    #[inline(always)]
    fn connect(&mut self, connection: &mut PeerConnection<'r>, scheme: Scheme, addr: &SocketAddr) -> Option<Status> {
        let (backend, shared) = ((scheme, addr), &self.conf.shared);
        let reuse_key = ReuseKey::of(self.request, self.upstream, self.route.owner, backend, shared)?;
        connection.reserve_address()?;
        self.has_attempted = true;
        let mut kept = None;
        if let Some(keepalive) = &self.conf.keepalive {
            let key = self.key.insert(Key::new(addr, reuse_key.owner, reuse_key.session));
            if !self.must_open_new {
                kept = keepalive.take(key, self.request, self.upstream);
            }
        }
        let reuse_suffix = [reuse_key.owner, reuse_key.session];
        let Some((kept, handle, keeps_timer)) = kept else {
            connection.set_address(addr, reuse_suffix, &AddrText::of(*addr));
            return Some(Status::NGX_OK);
        };
        self.handle = Some(handle);
        connection.set_address(addr, reuse_suffix, kept.text());
        connection.set_connection(kept, keeps_timer);
        Some(Status::NGX_DONE)
    }

    /// Logs why no backend is usable, unless one was already tried.
    #[cold]
    fn report_unusable(&self, connection: &PeerConnection<'r>) {
        if !self.has_attempted {
            connection.log().write(NGX_LOG_ERR, &self.describe_unusable());
        }
    }

    /// The log line for a request without a usable backend.
    fn describe_unusable(&self) -> String {
        let tool = tool_field(self.route);
        match self.route.endpoints().get(self.route.chosen.get()) {
            Some(endpoint @ Endpoint { destination: Destination::Name(..), .. }) => format!(
                "urlproxy_peers: backend is a host name; answering 502, expected \"proxy_pass $urlproxy_backend;\" with a resolver, backend={endpoint}{tool}"
            ),
            Some(endpoint) => {
                let module = self.upstream.protocol();
                let expected = expected_scheme(module);
                let module = module.escape_ascii();
                format!(
                    "urlproxy_peers: \"{module}_pass\" cannot use the backend's scheme; answering 502, expected {expected}, backend={endpoint}{tool}"
                )
            }
            None => {
                let comma = if tool.is_empty() { "" } else { "," };
                format!("urlproxy_peers: route withdrawn while the request waited; answering 502{comma}{tool}")
            }
        }
    }

    fn health_key(&self, endpoint: &Endpoint<'_>) -> Option<HealthKey> {
        match endpoint.destination {
            Destination::Addr(addr) => Some(HealthKey::new(self.route.owner, endpoint.scheme, addr)),
            Destination::Name(..) => None,
        }
    }

    fn health(&self) -> Option<Health<'static>> {
        self.route.table.table.get().map(|table| table.health())
    }
}

/// Seconds of the clock that all workers share.
pub(super) fn now_seconds() -> u32 {
    (now_milliseconds() / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_https_without_tls_are_unusable() {
        let endpoint = |scheme, text: &str| match text.parse() {
            Ok(addr) => Endpoint { scheme, destination: Destination::Addr(addr) },
            Err(_) => Endpoint { scheme, destination: Destination::Name("exec-1", 80) },
        };
        let (http, https) = (Scheme::Http, Scheme::Https);
        let endpoints = [endpoint(http, "10.0.0.1:80"), endpoint(https, "10.0.0.1:443"), endpoint(http, "exec-1")];
        assert_eq!((unusable(&endpoints, false), unusable(&endpoints, true)), (0b110, 0b100));
    }
}
