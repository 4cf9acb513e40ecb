//! Whom a connection to a backend may be kept for.
//!
//! A tool may close its listener, keep the connections that it accepted, and read what is sent to the next tool at its port; and
//! a connection with TLS was opened for one name. So nginx's `keepalive` uses a connection again only for the same record, and
//! in the same way. The operator may name networks whose addresses do not change hands, such as an ingress: plain
//! connections there are everybody's.

use std::hash::Hasher;
use std::net::SocketAddr;

use ipnet::IpNet;
use nginx_sys::{ngx_addr_t, ngx_http_request_t, ngx_http_upstream_t};
use siphasher::sip::SipHasher13;

use super::pool;
use super::request::evaluate;
use crate::route::Scheme;

/// Everything that two requests must have in common to use the same connection to an address, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptFor {
    /// Whose the requests are. 64 bits of a keyed hash that no tenant sees: nobody can look for two names with the same, and
    /// even a million records have two of the same once in 37 million zones.
    pub record: u64,
    /// How the backend is spoken to: with TLS a hash, odd, of everything that such a connection is opened with, else the
    /// address, even, of the nginx module that speaks (a connection of `grpc_pass` is of no use to `proxy_pass`).
    pub session: u64,
}

/// The record of connections that any may use, and of backends that the operator has named.
const EVERYBODY: u64 = 0;

/// Networks as masks: a look at one costs a few instructions.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    pub fn add(&mut self, networks: &[IpNet]) {
        for network in networks {
            match network {
                IpNet::V4(v4) => self.v4.push((v4.network().into(), v4.netmask().into())),
                IpNet::V6(v6) => self.v6.push((v6.network().into(), v6.netmask().into())),
            }
        }
    }

    #[inline(always)]
    fn contains(&self, addr: &SocketAddr) -> bool {
        match addr {
            SocketAddr::V4(v4) => self.v4.iter().any(|(network, mask)| u32::from(*v4.ip()) & mask == *network),
            SocketAddr::V6(v6) => self.v6.iter().any(|(network, mask)| u128::from(*v6.ip()) & mask == *network),
        }
    }
}

impl KeptFor {
    /// `owner` is [`Record::owner`](crate::table::Record::owner), `shared` are the operator's networks. `None` when nginx has no
    /// settings for TLS.
    ///
    /// # Safety
    /// `r` is a request that nginx is working on, `upstream` its upstream, whose backend is now chosen.
    #[inline]
    pub unsafe fn of(
        r: *mut ngx_http_request_t,
        upstream: *const ngx_http_upstream_t,
        owner: u64,
        (scheme, addr): (Scheme, &SocketAddr),
        shared: &Networks,
    ) -> Option<Self> {
        if scheme == Scheme::Https {
            // SAFETY: the caller's promise.
            let session = unsafe { tls_session(r, upstream, owner) }?;
            return Some(Self { record: owner, session });
        }
        let record = if shared.contains(addr) { EVERYBODY } else { owner };
        // nginx has a reference to the upstream's peer, so none is made to the whole.
        // SAFETY: the caller's promise.
        let module = unsafe { (*upstream).output.tag };
        let mut session = module.addr() as u64;
        // SAFETY: as above.
        let local = unsafe { (*upstream).peer.local };
        // SAFETY: an address of the request's or the configuration's, or null.
        if let Some(local) = unsafe { local.as_ref() } {
            session = bound_session(session, local);
        }
        Some(Self { record, session: session & !1 })
    }
}

/// A session from an address that `proxy_bind` names: it may be the client's.
#[cold]
fn bound_session(session: u64, local: &ngx_addr_t) -> u64 {
    // SAFETY: nginx has made the address, of this length.
    let bytes = unsafe { std::slice::from_raw_parts(local.sockaddr.cast::<u8>(), local.socklen as usize) };
    let mut hasher = SipHasher13::new_with_keys(session, 0);
    hasher.write(bytes);
    hasher.finish()
}

/// What nginx opens a connection with TLS with, as its `ngx_http_upstream_ssl_init_connection` finds it out.
///
/// # Safety
/// As for [`KeptFor::of`].
#[cold]
unsafe fn tls_session(r: *mut ngx_http_request_t, upstream: *const ngx_http_upstream_t, owner: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    let conf = unsafe { (*upstream).conf };
    // SAFETY: as above.
    let name = unsafe { (*upstream).ssl_name };
    // SAFETY: an upstream has the settings of the location that made it.
    let conf = unsafe { conf.as_ref() }?;
    // Only the hosts of one record could want to be mistaken for each other, and its hash is a key that they don't know.
    let mut hasher = SipHasher13::new_with_keys(owner, 0);
    // Protocols, ciphers, authorities and a fixed certificate are in the location's context.
    hasher.write_usize(conf.ssl.addr());
    // SAFETY: the caller's promise. nginx has several modules that speak, and from 1.29.4 two for `proxy_pass`.
    hasher.write_usize(unsafe { (*upstream).output.tag }.addr());
    // SAFETY: the caller's promise.
    let local = unsafe { (*upstream).peer.local };
    // SAFETY: an address of the request's or the configuration's, or null.
    if let Some(local) = unsafe { local.as_ref() } {
        hasher.write_u64(bound_session(0, local));
    }
    hasher.write_u8(u8::from(conf.ssl_verify != 0));
    hasher.write_u8(u8::from(conf.ssl_server_name != 0));
    let mut write = |text: &[u8]| {
        hasher.write_usize(text.len());
        hasher.write(text);
    };
    if conf.ssl_verify != 0 || conf.ssl_server_name != 0 {
        match std::ptr::NonNull::new(conf.ssl_name) {
            // SAFETY: the caller's request; nginx evaluates the same text once the connection is there.
            Some(text) => write(unsafe { evaluate(r, text) }),
            // SAFETY: the upstream's own name, which nginx falls back to.
            None => write(unsafe { pool::bytes(name) }),
        }
    }
    for text in [conf.ssl_certificate, conf.ssl_certificate_key] {
        if let Some(text) = std::ptr::NonNull::new(text)
            // SAFETY: a text of the configuration.
            && !unsafe { text.as_ref() }.lengths.is_null()
        {
            // SAFETY: as above.
            write(unsafe { evaluate(r, text) });
        }
    }
    Some(hasher.finish() | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_own_addresses_and_no_others() {
        let mut networks = Networks::default();
        networks.add(&["10.1.0.0/16", "192.0.2.1/32", "fd00::/8", "::1/128"].map(|text| text.parse().unwrap()));
        let contains = |text: &str| networks.contains(&SocketAddr::new(text.parse().unwrap(), 80));
        assert!(["10.1.0.0", "10.1.255.255", "192.0.2.1", "fdff::1", "::1"].into_iter().all(contains));
        assert!(!["10.2.0.0", "192.0.2.0", "fe00::", "::2", "::ffff:10.1.0.0"].into_iter().any(contains));
        networks.add(&["0.0.0.0/0".parse().unwrap()]);
        assert!(networks.contains(&([10, 2, 0, 0], 80).into()));
    }
}
