//! Whom a connection to a backend may be kept for.
//!
//! A tool may close its listener, keep the connections that it accepted, and read what is sent to the next tool at its port; and
//! a connection with TLS was opened for one name. So nginx's `keepalive` uses a connection again only for the same record, and
//! in the same way. The operator may name networks whose addresses do not change hands, such as an ingress: plain
//! connections there are everybody's.

use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use crate::nginx::conf::networks::Networks;
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::upstream::Upstream;
use crate::route::Scheme;

/// Everything that two requests must have in common to use the same connection to an address, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReuseKey {
    /// Whose the requests are. 64 bits of a keyed hash that no tenant sees: nobody can look for two names with the same, and
    /// even a million records have two of the same once in 37 million zones.
    pub owner: u64,
    /// How the backend is spoken to: with TLS a hash, odd, of everything that such a connection is opened with, else the
    /// address, even, of the nginx module that speaks (a connection of `grpc_pass` is of no use to `proxy_pass`).
    pub session: u64,
}

/// The record of connections that any may use, and of backends that the operator has named.
const SHARED: u64 = 0;

impl ReuseKey {
    /// `owner` is [`Record::owner`](crate::table::Record::owner), `shared` are the operator's networks. `None` when nginx has no
    /// settings for TLS.
    #[inline]
    pub fn of<'r>(
        request: Request<'r>,
        upstream: Upstream<'r>,
        owner: u64,
        (scheme, addr): (Scheme, &SocketAddr),
        shared: &Networks,
    ) -> Option<Self> {
        if scheme == Scheme::Https {
            return Some(Self { owner, session: tls_session(request, upstream, owner)? });
        }
        let owner = if shared.contains(addr) { SHARED } else { owner };
        let mut session = upstream.tag();
        if let Some(local) = upstream.local_address() {
            session = bound_session(session, local);
        }
        Some(Self { owner, session: session & !1 })
    }
}

/// A session from an address that `proxy_bind` names: it may be the client's.
#[cold]
fn bound_session(session: u64, local: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(session, 0);
    hasher.write(local);
    hasher.finish()
}

/// A hash of all that nginx opens a connection with TLS with; `None` when it has no settings.
#[cold]
fn tls_session<'r>(request: Request<'r>, upstream: Upstream<'r>, owner: u64) -> Option<u64> {
    let settings = upstream.tls_settings()?;
    // Only the hosts of one record could want to be mistaken for each other, and its hash is a key that they don't know.
    let mut hasher = SipHasher13::new_with_keys(owner, 0);
    hasher.write_usize(settings.context);
    hasher.write_u64(upstream.tag());
    if let Some(local) = upstream.local_address() {
        hasher.write_u64(bound_session(0, local));
    }
    hasher.write_u8(settings.verifies.into());
    hasher.write_u8(settings.sends_name.into());
    let mut write = |text: &[u8]| {
        hasher.write_usize(text.len());
        hasher.write(text);
    };
    if settings.verifies || settings.sends_name {
        // nginx evaluates the same text once the connection is there.
        write(settings.name.map_or(settings.default_name, |name| request.evaluate(&name)));
    }
    for text in settings.certificates.into_iter().flatten() {
        write(request.evaluate(&text));
    }
    Some(hasher.finish() | 1)
}
