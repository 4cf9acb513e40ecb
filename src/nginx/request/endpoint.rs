//! Backends of a request, copied from the table into the request's pool.

use std::fmt;
use std::net::SocketAddr;

use crate::nginx::ffi::pool::Pool;
use crate::route::{Backend, Host, Scheme, draw_for_addr, draw_for_name};
use crate::table::{BackendView, HostView};

/// A backend, copied from the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nginx) struct Endpoint<'r> {
    pub scheme: Scheme,
    pub destination: Destination<'r>,
}

/// The address or name of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nginx) enum Destination<'r> {
    Addr(SocketAddr),
    Name(&'r str, u16),
}

impl<'r> Endpoint<'r> {
    /// Copies a backend of a table record. `None` if out of memory.
    #[inline(always)]
    pub fn copied(pool: Pool<'r>, backend: BackendView<'_>) -> Option<Self> {
        let destination = match backend.host {
            HostView::Ip(ip) => Destination::Addr(SocketAddr::new(ip, backend.port)),
            HostView::Name(name) => {
                let name = pool.copy(name.as_bytes())?;
                Destination::Name(std::str::from_utf8(name).ok()?, backend.port)
            }
        };
        Some(Self { scheme: backend.scheme, destination })
    }

    /// The rendezvous hashing weight of this backend for `key`.
    pub fn weight(&self, key: u64) -> u64 {
        match self.destination {
            Destination::Addr(addr) => draw_for_addr(key, self.scheme, addr),
            Destination::Name(name, port) => draw_for_name(key, self.scheme, name, port),
        }
    }

    /// A backend from the configuration.
    pub fn of(backend: &'r Backend) -> Self {
        let destination = match (&backend.host, backend.socket_addr()) {
            (_, Some(addr)) => Destination::Addr(addr),
            (Host::Name(name), None) => Destination::Name(name, backend.port),
            (_, None) => Destination::Name("", backend.port),
        };
        Self { scheme: backend.scheme, destination }
    }
}

impl fmt::Display for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            Destination::Addr(addr) => write!(f, "{}://{addr}", self.scheme.as_str()),
            Destination::Name(name, port) => write!(f, "{}://{name}:{port}", self.scheme.as_str()),
        }
    }
}
