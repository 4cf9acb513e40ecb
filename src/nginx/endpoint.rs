//! A request's backends, copied out of the table.

use std::fmt;
use std::net::SocketAddr;

use nginx_sys::ngx_pool_t;

use super::pool;
use crate::route::{Backend, Host, Scheme, draw_for_addr, draw_for_name};
use crate::table::{BackendView, HostView};

/// A backend, copied out of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub scheme: Scheme,
    pub destination: Destination,
}

/// Where a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Addr(SocketAddr),
    Name(&'static str, u16),
}

impl Endpoint {
    /// Copies what the table's record says out of it.
    #[inline(always)]
    pub fn copied(pool: *mut ngx_pool_t, backend: BackendView<'_>) -> Option<Self> {
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

    /// Its affinity to a key.
    pub fn draw(&self, key: u64) -> u64 {
        match self.destination {
            Destination::Addr(addr) => draw_for_addr(key, self.scheme, addr),
            Destination::Name(name, port) => draw_for_name(key, self.scheme, name, port),
        }
    }

    pub fn of(backend: &'static Backend) -> Self {
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
