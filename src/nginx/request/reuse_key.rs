//! Which requests may reuse a kept connection.
//!
//! A tool may close its listener, keep the accepted connections and read requests meant for the next tool on that port. A TLS
//! connection is opened for one name. So a connection is reused only for the same owner and the same TLS settings.
//! The operator may list shared networks, whose addresses do not move between tools (such as an ingress): all owners share
//! the plain HTTP connections there.

use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use crate::nginx::conf::networks::Networks;
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::upstream::Upstream;
use crate::route::Scheme;

/// What two requests must have in common, beside the address, to reuse the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReuseKey {
    /// The owner: a tool or domain, as 64 bits of a keyed hash. Tenants do not see the hash, so they cannot search for
    /// collisions. A million records collide by chance in one of 37 million zones.
    pub owner: u64,
    /// How the connection was opened. With TLS: a hash of all TLS settings, always odd. Without: the address of the nginx
    /// module that opened it, always even, because `proxy_pass` cannot reuse a connection of `grpc_pass`.
    pub session: u64,
}

/// The owner of connections that all owners share, and of backends from the configuration.
const SHARED: u64 = 0;

impl ReuseKey {
    /// `owner` is [`Record::owner`](crate::table::Record::owner); `shared` are the operator's shared networks. `None` if the
    /// location has no TLS settings.
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

/// The session of a connection bound by `proxy_bind`, possibly to the client's address.
#[cold]
fn bound_session(session: u64, local: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(session, 0);
    hasher.write(local);
    hasher.finish()
}

/// A hash of all settings of a TLS connection; `None` if the location has no TLS settings.
#[cold]
fn tls_session<'r>(request: Request<'r>, upstream: Upstream<'r>, owner: u64) -> Option<u64> {
    let settings = upstream.tls_settings()?;
    // Keyed by the owner's hash, which the owner does not know: a tenant cannot craft colliding host names.
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
        // nginx evaluates the same value when it opens the connection.
        write(settings.name.map_or(settings.default_name, |name| request.evaluate(&name)));
    }
    for text in settings.certificates.into_iter().flatten() {
        write(request.evaluate(&text));
    }
    Some(hasher.finish() | 1)
}
