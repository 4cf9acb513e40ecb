//! A record as bytes. Written by one encoder, read by views that never panic, whatever the bytes.
//!
//! ```text
//! key_len u8, key, routes u8, then per route:
//!     matcher u8, pattern_len u16, literal_len u16 (ffff: the pattern), pattern, literal, backends u8, then per backend:
//!         scheme+host u8 (bit 7: https; 4, 6, or 0 for a name), port u16, 4 | 16 bytes | name_len u8 + name
//! ```
//! Integers are little-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::reader::Version;
use crate::route::{Backend, Host, Matcher, PatternCache, Route, RouteKey, Scheme, contains};

/// Longest record: 32 patterns of the longest kind, or 64 backends with the longest names.
pub const MAX_RECORD_BYTES: usize = 96 << 10;

const HTTPS: u8 = 0x80;
/// In place of a literal's length: it is the pattern itself.
const SAME: u16 = u16::MAX;

/// Appends a record. The routes are in the order in which they are to be tried; a redirect has none.
pub(super) fn encode(key: &RouteKey, routes: &[Route], out: &mut Vec<u8>) {
    put_short(key.as_bytes(), out);
    out.push(routes.len() as u8);
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
}

fn put_short(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn encode_backend(backend: &Backend, out: &mut Vec<u8>) {
    let scheme = if backend.scheme == Scheme::Https { HTTPS } else { 0 };
    let kind = match backend.host {
        Host::V4(_) => 4,
        Host::V6(_) => 6,
        Host::Name(_) => 0,
    };
    out.push(scheme | kind);
    out.extend_from_slice(&backend.port.to_le_bytes());
    match &backend.host {
        Host::V4(ip) => out.extend_from_slice(&ip.octets()),
        Host::V6(ip) => out.extend_from_slice(&ip.octets()),
        Host::Name(name) => put_short(name.as_bytes(), out),
    }
}

/// A copied record: its key and its routes.
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
    /// How the pattern is found.
    pub matcher: Matcher,
    /// The pattern as the tenant wrote it.
    pub pattern: &'a [u8],
    /// What [`Matcher`] compares.
    pub literal: &'a [u8],
    /// How many backends there are, at least one.
    pub backend_count: usize,
    backends: &'a [u8],
}

/// One backend of a copied record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendView<'a> {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Where it is.
    pub host: HostView<'a>,
    /// TCP port.
    pub port: u16,
}

/// The machine of a copied backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostView<'a> {
    /// An address.
    Ip(IpAddr),
    /// A DNS name.
    Name(&'a str),
}

impl<'a> Record<'a> {
    pub(super) fn new(bytes: &'a [u8], counters: u32) -> Self {
        Self { bytes, counters, owner: 0, version: Version::default() }
    }

    /// Found by the keyed hash of its key.
    pub(super) fn found_by(self, hash: u64, version: Version) -> Self {
        Self { owner: hash.max(1), version, ..self }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// What [`RouteKey::as_bytes`] gave: a tool's own name, another kind's after its mark.
    pub fn key(&self) -> &'a [u8] {
        Reader(self.bytes).short().unwrap_or_default()
    }

    /// Whose it is: the keyed hash of its key, which nobody who chooses names can predict. The same as long as the zone
    /// is, whatever becomes of the routes; 0 for one that was not found by a lookup.
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// The number of its counters, for [`super::Table::counters`].
    pub fn counters(&self) -> u32 {
        self.counters
    }

    /// Which record this is. Only what a lookup found has a version that can be current.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The routes, in the order in which they are to be tried.
    pub fn routes(&self) -> impl Iterator<Item = RouteView<'a>> + use<'a> {
        let mut reader = Reader(self.bytes);
        let _ = reader.short();
        let count = reader.byte().unwrap_or(0);
        (0..count).map_while(move |_| reader.route())
    }

    /// The first route whose pattern is found in `rest`, the path after the tool's name.
    #[inline(always)]
    pub fn select(&self, rest: &[u8], patterns: &mut PatternCache) -> Option<RouteView<'a>> {
        self.routes().find(|route| match route.matcher {
            Matcher::Any => true,
            Matcher::Contains => contains(rest, route.literal),
            Matcher::Prefix => rest.starts_with(route.literal),
            Matcher::Suffix => rest.ends_with(route.literal),
            Matcher::Exact => rest == route.literal,
            Matcher::Regex => std::str::from_utf8(route.pattern).is_ok_and(|p| patterns.is_match(p, rest)),
        })
    }
}

impl<'a> RouteView<'a> {
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
    /// The address to connect to, when the host is one.
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

/// Takes fields off the front; `None` when the bytes end early.
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
            4 => 4,
            6 => 16,
            _ => self.byte()?.into(),
        };
        self.take(len).map(|_| ())
    }

    fn backend(&mut self) -> Option<BackendView<'a>> {
        let [kind, port @ ..] = self.array::<3>()?;
        let port = u16::from_le_bytes(port);
        let scheme = if kind & HTTPS == 0 { Scheme::Http } else { Scheme::Https };
        let host = match kind & !HTTPS {
            4 => HostView::Ip(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => HostView::Ip(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => HostView::Name(std::str::from_utf8(self.short()?).ok()?),
        };
        Some(BackendView { scheme, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Kind, MAX_BACKENDS, MAX_PATTERN_LEN, MAX_ROUTES, Pattern, sort_routes};
    use proptest::prelude::*;

    fn key(tool: &str) -> RouteKey {
        RouteKey::try_new(Kind::Tool, tool.as_bytes()).unwrap()
    }

    fn route(pattern: &str, backends: &[&str]) -> Route {
        Route {
            pattern: Pattern::try_new(pattern).unwrap(),
            backends: backends.iter().map(|b| b.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let urls = ["http://10.1.2.3:8000", "https://[fd00::7]:443", "https://exec-1.example:65535"];
        let routes = [route("^/a[0-9]", &urls), route(r"/x\.php", &urls[1..]), route(".*", &urls[..1])];
        let mut bytes = Vec::new();
        encode(&key("hello"), &routes, &mut bytes);
        let record = Record::new(&bytes, 7);
        assert_eq!((record.key(), record.counters()), (&b"hello"[..], 7));
        let read: Vec<_> = record.routes().collect();
        assert_eq!(read.len(), 3);
        for (read, wrote) in read.iter().zip(&routes) {
            assert_eq!(read.pattern, wrote.pattern.as_str().as_bytes());
            assert_eq!((read.matcher, read.literal), (wrote.pattern.matcher(), wrote.pattern.literal()));
            let texts: Vec<_> = read.backends().map(|b| b.to_string()).collect();
            assert_eq!(texts, wrote.backends.iter().map(Backend::to_string).collect::<Vec<_>>());
            assert_eq!(read.first_backend().unwrap().socket_addr(), wrote.backends[0].socket_addr());
        }
    }

    #[test]
    fn a_usual_tool_fits_one_cell() {
        let mut bytes = Vec::new();
        encode(&key("tool-123456"), &[route(".*", &["http://10.255.0.1:65535"])], &mut bytes);
        assert!(bytes.len() + 16 <= 64, "{}", bytes.len());
    }

    #[test]
    fn the_largest_records_fit_the_limit() {
        let name = format!("http://{}.{}.{}.{}:65535", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        let tool = key(&"t".repeat(255));
        let literal: Vec<_> =
            (0..MAX_ROUTES).map(|i| route(&format!("{}{i:02}", "x".repeat(MAX_PATTERN_LEN - 2)), &[&name])).collect();
        let set = [route(".*", &vec![name.as_str(); MAX_BACKENDS])];
        for routes in [&literal[..], &set] {
            let mut bytes = Vec::new();
            encode(&tool, routes, &mut bytes);
            assert!(bytes.len() <= MAX_RECORD_BYTES, "{}", bytes.len());
        }
    }

    #[test]
    fn the_first_route_found_answers() {
        let mut routes = ["/a", "^/b", r"\.php$", "^/c/$", "^/d[0-9]", ".*"].map(|p| route(p, &["http://10.0.0.1:1"]));
        sort_routes(&mut routes);
        let mut bytes = Vec::new();
        encode(&key("t"), &routes, &mut bytes);
        let mut patterns = PatternCache::new(1 << 20);
        for (rest, want) in [
            ("/x/a", "/a"),
            ("/b", "^/b"),
            ("/x/b.php", r"\.php$"),
            ("/c/", "^/c/$"),
            ("/c/x", ".*"),
            ("/d7", "^/d[0-9]"),
            ("/d", ".*"),
            ("/", ".*"),
        ] {
            let found = Record::new(&bytes, 0).select(rest.as_bytes(), &mut patterns).unwrap();
            assert_eq!(found.pattern, want.as_bytes(), "{rest}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let record = Record::new(&bytes, 0);
            let _ = record.key();
            for route in record.routes() {
                for backend in route.backends() {
                    let _ = backend.to_string();
                }
            }
        }
    }
}
