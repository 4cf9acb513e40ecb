//! The encoding of a record. One encoder writes it; views read it and never panic, whatever the bytes.
//!
//! ```text
//! key_len u8, then the record's shape:
//!     plain   one route with the pattern `.*` to one IPv4 backend, as almost all have: that backend, 7 bytes
//!     other   0, routes u8, 5 unused bytes
//! then the key, and unless plain per route:
//!     matcher u8, pattern_len u16, literal_len u16 (ffff: the pattern), pattern, literal, backends u8, then per backend:
//!         scheme+host u8 (bit 7: https; 4, 6, or 0xf for a name), port u16, 4 | 16 bytes | name_len u8 + name
//! then the automata of the regular expressions, to the end
//! ```
//! Integers are little-endian. [`crate::route::Automata`] documents the automata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use crate::route::{Backend, Host, Matcher, Pattern, Route, RouteKey, Scheme, contains, find_first};

const HTTPS: u8 = 0x80;
/// Kinds of host; never 0, which marks a record that is not plain.
const V4: u8 = 4;
const V6: u8 = 6;
const NAME: u8 = 0xf;
/// Bytes before the key.
const HEAD_BYTES: usize = 8;
/// In place of a literal's length: the literal equals the pattern.
const SAME: u16 = u16::MAX;

/// Appends a record. `routes` are in matching order, none for a redirect; `automata` belong to their regular expressions.
pub(super) fn encode(key: &RouteKey, routes: &[Route], automata: &[u8], out: &mut Vec<u8>) {
    let key = key.as_bytes();
    out.push(key.len() as u8);
    if let Some(backend) = plain_backend(routes) {
        encode_backend(backend, out);
        out.extend_from_slice(key);
        return;
    }
    out.extend_from_slice(&[0, routes.len() as u8, 0, 0, 0, 0, 0]);
    out.extend_from_slice(key);
    for route in routes {
        let (pattern, literal) = (route.pattern.as_str().as_bytes(), route.pattern.literal());
        out.push(route.pattern.matcher() as u8);
        out.extend_from_slice(&(pattern.len() as u16).to_le_bytes());
        let same = pattern == literal;
        out.extend_from_slice(&if same { SAME } else { literal.len() as u16 }.to_le_bytes());
        out.extend_from_slice(pattern);
        out.extend_from_slice(if same { b"" } else { literal });
        out.push(route.backends.len() as u8);
        route.backends.iter().for_each(|b| encode_backend(b, out));
    }
    out.extend_from_slice(automata);
}

/// The backend, if these routes make a plain record.
fn plain_backend(routes: &[Route]) -> Option<&Backend> {
    let [Route { pattern, backends }] = routes else { return None };
    let [backend @ Backend { host: Host::V4(_), .. }] = &backends[..] else { return None };
    (*pattern == Pattern::any()).then_some(backend)
}

/// Size of a record with these routes, in bytes without automata.
pub fn record_bytes(key: &RouteKey, routes: &[Route]) -> usize {
    let routes = if plain_backend(routes).is_some() { &[] } else { routes };
    HEAD_BYTES + key.as_bytes().len() + routes.iter().map(route_bytes).sum::<usize>()
}

/// Size of a route within its record, in bytes.
pub fn route_bytes(route: &Route) -> usize {
    let (pattern, literal) = (route.pattern.as_str().as_bytes(), route.pattern.literal());
    let text = if pattern == literal { pattern.len() } else { pattern.len() + literal.len() };
    6 + text + route.backends.iter().map(backend_bytes).sum::<usize>()
}

/// Size of a backend within its record, in bytes.
pub fn backend_bytes(backend: &Backend) -> usize {
    3 + match &backend.host {
        Host::V4(_) => 4,
        Host::V6(_) => 16,
        Host::Name(name) => 1 + name.len(),
    }
}

fn encode_backend(backend: &Backend, out: &mut Vec<u8>) {
    let scheme = if backend.scheme == Scheme::Https { HTTPS } else { 0 };
    let kind = match backend.host {
        Host::V4(_) => V4,
        Host::V6(_) => V6,
        Host::Name(_) => NAME,
    };
    out.push(scheme | kind);
    out.extend_from_slice(&backend.port.to_le_bytes());
    match &backend.host {
        Host::V4(ip) => out.extend_from_slice(&ip.octets()),
        Host::V6(ip) => out.extend_from_slice(&ip.octets()),
        Host::Name(name) => {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
    }
}

/// Number of routes of an encoded record.
pub(super) fn route_count(bytes: &[u8]) -> u64 {
    Record::new(bytes, 0).route_count()
}

/// Identifies the record that a lookup found, for [`Table::is_current`](super::Table::is_current).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    pub(super) bucket: u32,
    pub(super) slot: u32,
    /// The slot's word. Another record in the same slot has another word, except for one 2^20 records later.
    pub(super) word: u64,
}

/// A copied record: a key and its routes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    counters: u32,
    version: Version,
    owner: u64,
}

/// One route of a copied record.
#[derive(Clone, Copy, Debug)]
pub struct RouteView<'a> {
    /// How the pattern is matched.
    pub matcher: Matcher,
    /// The pattern as the tenant wrote it.
    pub pattern: &'a [u8],
    /// The text that [`Matcher`] compares.
    pub literal: &'a [u8],
    /// Number of backends, at least one.
    pub backend_count: usize,
    backends: &'a [u8],
}

/// One backend of a copied record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendView<'a> {
    /// HTTP or HTTPS.
    pub scheme: Scheme,
    /// Address or name.
    pub host: HostView<'a>,
    /// TCP port.
    pub port: u16,
}

/// The host of a copied backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostView<'a> {
    /// An address.
    Ip(IpAddr),
    /// A DNS name.
    Name(&'a str),
}

impl<'a> Record<'a> {
    /// A view of any bytes, without a lookup.
    #[doc(hidden)]
    pub fn new(bytes: &'a [u8], counters: u32) -> Self {
        Self { bytes, counters, owner: 0, version: Version::default() }
    }

    /// Adds what a lookup knows: the keyed hash of the key, and the version.
    pub(super) fn found_by(self, hash: u64, version: Version) -> Self {
        Self { owner: hash.max(1), version, ..self }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Size of the encoded record in bytes.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded key, see [`RouteKey::as_bytes`]: a tool's name, or a mark and another kind's name.
    #[inline(always)]
    pub fn key(&self) -> &'a [u8] {
        self.parts().map_or(&[], |(_, key, _)| key)
    }

    /// Shape, key, and the rest.
    #[inline(always)]
    fn parts(&self) -> Option<(&'a [u8], &'a [u8], Reader<'a>)> {
        let ([key_len, shape @ ..], rest) = self.bytes.split_first_chunk::<HEAD_BYTES>()?;
        let (key, rest) = rest.split_at_checked((*key_len).into())?;
        Some((shape, key, Reader(rest)))
    }

    /// The keyed hash of the key, which tenants cannot predict. Constant for the lifetime of the zone, however the routes
    /// change; 0 if the record does not come from a lookup.
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// The number of its counters, for [`super::Table::counters`].
    pub fn counters(&self) -> u32 {
        self.counters
    }

    /// The record's version. Only a record from a lookup has a valid one.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The backend of a plain record, which has one route `.*` to one backend.
    #[inline(always)]
    pub fn plain(&self) -> Option<(Scheme, SocketAddrV4)> {
        let &[_, kind, p0, p1, a, b, c, d] = self.bytes.first_chunk::<HEAD_BYTES>()?;
        let addr = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_le_bytes([p0, p1]));
        (kind != 0).then_some((scheme_of(kind), addr))
    }

    /// Number of routes, a reader for them, and the route of a plain record.
    fn shape(&self) -> (u8, Reader<'a>, Option<RouteView<'a>>) {
        match self.parts() {
            Some(([0, routes, ..], _, reader)) => (*routes, reader, None),
            Some((backends, ..)) => {
                let route =
                    RouteView { matcher: Matcher::Any, pattern: b".*", literal: b"", backend_count: 1, backends };
                (1, Reader(&[]), Some(route))
            }
            None => (0, Reader(&[]), None),
        }
    }

    /// Number of routes; none of a redirect.
    pub fn route_count(&self) -> u64 {
        self.shape().0.into()
    }

    /// The routes, in matching order.
    pub fn routes(&self) -> impl Iterator<Item = RouteView<'a>> + use<'a> {
        let (count, mut reader, mut plain) = self.shape();
        (0..count).map_while(move |_| plain.take().or_else(|| reader.route()))
    }

    /// The automata of the regular expressions, see [`crate::route::Automata`].
    pub fn automata(&self) -> &'a [u8] {
        let (count, mut reader, None) = self.shape() else { return &[] };
        for _ in 0..count {
            if reader.route().is_none() {
                return &[];
            }
        }
        reader.0
    }

    /// The first route with a pattern that matches `rest`, the path after the tool's name.
    pub fn select(&self, rest: &[u8]) -> Option<RouteView<'a>> {
        let (count, mut reader, plain) = self.shape();
        if plain.is_some() {
            return plain;
        }
        for _ in 0..count {
            // Returned without a copy: copying a view costs more than finding it.
            let next = reader.route();
            let route = next.as_ref()?;
            if route.matcher == Matcher::Any {
                return next;
            }
            if route.matcher == Matcher::Regex {
                return self.select_with_automata(rest);
            }
            if route.is_found_in(rest) {
                return next;
            }
        }
        None
    }

    /// The routes that [`Self::select`] tries for `rest`, in order, and whether each pattern matches: at most the last one does.
    pub fn tried(&self, rest: &[u8]) -> impl Iterator<Item = (RouteView<'a>, bool)> {
        let regexes = self.routes().filter(|route| route.matcher == Matcher::Regex).count();
        let first_regex = find_first(self.automata(), rest, u8::try_from(regexes).unwrap_or(u8::MAX));
        let (mut number, mut is_over) = (0u8, false);
        self.routes().map_while(move |route| {
            if is_over {
                return None;
            }
            if route.matcher == Matcher::Regex {
                is_over = first_regex == Some(number);
                number = number.saturating_add(1);
            } else {
                is_over = route.is_found_in(rest);
            }
            Some((route, is_over))
        })
    }

    /// [`Self::select`] for a tool with regular expressions: searches their automata once, and only for patterns that come
    /// before the first other match.
    #[inline(never)]
    fn select_with_automata(&self, rest: &[u8]) -> Option<RouteView<'a>> {
        let mut before = 0u8;
        let other = self.routes().find(|route| {
            let is_regex = route.matcher == Matcher::Regex;
            before = before.saturating_add(is_regex.into());
            !is_regex && route.is_found_in(rest)
        });
        let mut regexes = self.routes().filter(|route| route.matcher == Matcher::Regex);
        find_first(self.automata(), rest, before).and_then(|number| regexes.nth(number.into())).or(other)
    }
}

impl<'a> RouteView<'a> {
    /// Whether the literal matches; never for a regular expression.
    #[inline(always)]
    fn is_found_in(&self, rest: &[u8]) -> bool {
        match self.matcher {
            Matcher::Any => true,
            Matcher::Contains => contains(rest, self.literal),
            Matcher::Prefix => rest.starts_with(self.literal),
            Matcher::Suffix => rest.ends_with(self.literal),
            Matcher::Exact => rest == self.literal,
            Matcher::Regex => false,
        }
    }

    /// The backends, in a fixed order.
    pub fn backends(&self) -> impl Iterator<Item = BackendView<'a>> + use<'a> {
        let mut reader = Reader(self.backends);
        (0..self.backend_count).map_while(move |_| reader.backend())
    }

    /// The first backend.
    pub fn first_backend(&self) -> Option<BackendView<'a>> {
        Reader(self.backends).backend()
    }
}

impl BackendView<'_> {
    /// The address to connect to, if the host is an address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            HostView::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            HostView::Name(_) => None,
        }
    }
}

impl std::fmt::Display for BackendView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, port) = (self.scheme.as_str(), self.port);
        match self.host {
            HostView::Ip(IpAddr::V4(ip)) => write!(f, "{scheme}://{ip}:{port}"),
            HostView::Ip(IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]:{port}"),
            HostView::Name(name) => write!(f, "{scheme}://{name}:{port}"),
        }
    }
}

#[inline(always)]
fn scheme_of(kind: u8) -> Scheme {
    if kind & HTTPS == 0 { Scheme::Http } else { Scheme::Https }
}

/// Reads fields off the front; `None` if the bytes end early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[b]| b)
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.byte()?;
        self.take(len.into())
    }

    fn route(&mut self) -> Option<RouteView<'a>> {
        let [matcher, p0, p1, l0, l1] = self.array()?;
        let matcher = Matcher::from_u8(matcher)?;
        let (pattern_len, literal_len) = (u16::from_le_bytes([p0, p1]), u16::from_le_bytes([l0, l1]));
        let pattern = self.take(pattern_len.into())?;
        let literal = if literal_len == SAME { pattern } else { self.take(literal_len.into())? };
        let backend_count = usize::from(self.byte()?);
        let before = self.0;
        for _ in 0..backend_count {
            self.skip_backend()?;
        }
        let backends = before.get(..before.len() - self.0.len())?;
        Some(RouteView { matcher, pattern, literal, backend_count, backends })
    }

    fn skip_backend(&mut self) -> Option<()> {
        let [kind, _, _] = self.array()?;
        let len = match kind & !HTTPS {
            V4 => 4,
            V6 => 16,
            _ => self.byte()?.into(),
        };
        self.take(len).map(|_| ())
    }

    fn backend(&mut self) -> Option<BackendView<'a>> {
        let [kind, port @ ..] = self.array::<3>()?;
        let port = u16::from_le_bytes(port);
        let scheme = scheme_of(kind);
        let host = match kind & !HTTPS {
            V4 => HostView::Ip(Ipv4Addr::from(self.array::<4>()?).into()),
            V6 => HostView::Ip(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => HostView::Name(std::str::from_utf8(self.short()?).ok()?),
        };
        Some(BackendView { scheme, host, port })
    }
}

#[cfg(test)]
mod tests;
