//! Records round-trip, and any bytes are safe to read.

use super::super::layout::MAX_RECORD_BYTES;
use super::*;
use crate::route::{Automata, Kind, MAX_BACKENDS, MAX_PATTERN_LEN, MAX_ROUTES, sort_routes};
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
fn records_round_trip() {
    let urls = ["http://10.1.2.3:8000", "https://[fd00::7]:443", "https://exec-1.example:65535"];
    let routes = [route("^/a[0-9]", &urls), route(r"/x\.php", &urls[1..]), route(".*", &urls[..1])];
    let mut bytes = Vec::new();
    encode(&key("hello"), &routes, &[1, 2, 3], &mut bytes);
    let record = Record::new(&bytes, 7);
    assert_eq!((record.key(), record.counters()), (&b"hello"[..], 7));
    assert_eq!((record.automata(), bytes.len()), (&[1, 2, 3][..], record_bytes(&key("hello"), &routes) + 3));
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
fn plain_and_long_forms_read_alike() {
    for (pattern, backends, bytes) in [
        (".*", &["https://10.255.0.1:65535"][..], 8 + 5),
        ("/.*", &["https://10.255.0.1:65535"], 8 + 5 + 5 + 3 + 1 + 7),
        (".*", &["https://10.255.0.1:65535", "http://10.0.0.2:80"], 8 + 5 + 5 + 2 + 1 + 7 + 7),
        (".*", &["https://[fd00::7]:443"], 8 + 5 + 5 + 2 + 1 + 19),
        (".*", &["http://exec-1:80"], 8 + 5 + 5 + 2 + 1 + 4 + 6),
    ] {
        let (key, routes) = (key("hello"), [route(pattern, backends)]);
        let mut encoded = Vec::new();
        encode(&key, &routes, &[], &mut encoded);
        assert_eq!((encoded.len(), record_bytes(&key, &routes)), (bytes, bytes), "{pattern} {backends:?}");
        let record = Record::new(&encoded, 0);
        let read: Vec<_> = record.routes().collect();
        let texts: Vec<_> = read.iter().flat_map(|r| r.backends()).map(|b| b.to_string()).collect();
        assert_eq!(
            (record.key(), read.len(), texts),
            (&b"hello"[..], 1, backends.iter().map(|b| (*b).to_owned()).collect())
        );
        let found = record.select(b"/x").unwrap();
        assert_eq!((found.pattern, found.backend_count), (pattern.as_bytes(), backends.len()));
        assert!(record.automata().is_empty());
        let is_plain = pattern == ".*" && backends.len() == 1 && backends[0].contains("//10.");
        let plain = record.plain().map(|(scheme, addr)| format!("{}://{addr}", scheme.as_str()));
        assert_eq!(plain, is_plain.then(|| backends[0].to_owned()));
    }
}

#[test]
fn a_usual_tool_fits_one_cell() {
    let mut bytes = Vec::new();
    encode(&key(&"t".repeat(40)), &[route(".*", &["http://10.255.0.1:65535"])], &[], &mut bytes);
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
        encode(&tool, routes, &[], &mut bytes);
        assert_eq!(bytes.len(), record_bytes(&tool, routes));
        assert!(bytes.len() <= MAX_RECORD_BYTES, "{}", bytes.len());
    }
}

#[test]
fn the_first_matching_route_wins() {
    let mut routes = ["/a", "^/b", r"\.php$", "^/c/$", "^/d[0-9]", "[7-9]x", "^/(d|e)1/", ".*"]
        .map(|p| route(p, &["http://10.0.0.1:1"]));
    sort_routes(&mut routes);
    let mut bytes = Vec::new();
    let regexes: Vec<_> =
        routes.iter().map(|r| &r.pattern).filter(|p| p.matcher() == Matcher::Regex).map(Pattern::as_str).collect();
    encode(&key("t"), &routes, Automata::build_quickly(&regexes, 8 << 10).unwrap().as_bytes(), &mut bytes);
    for (rest, want) in [
        ("/x/a", "/a"),
        ("/b", "^/b"),
        ("/x/b.php", r"\.php$"),
        ("/c/", "^/c/$"),
        ("/c/x", ".*"),
        ("/d7", "^/d[0-9]"),
        ("/d", ".*"),
        ("/", ".*"),
        ("/d1/", "^/(d|e)1/"),
        ("/d1/8x", "^/(d|e)1/"),
        ("/8x.php", r"\.php$"),
        ("/8x/a", "/a"),
        ("/8x/", "[7-9]x"),
    ] {
        let found = Record::new(&bytes, 0).select(rest.as_bytes()).unwrap();
        assert_eq!(found.pattern, want.as_bytes(), "{rest}");
    }
}

/// Pattern and backends of the only route tried that matches, which is the last one.
fn last_tried<'a>(record: &Record<'a>, rest: &[u8]) -> Option<RouteView<'a>> {
    let tried: Vec<_> = record.tried(rest).collect();
    let matching = tried.iter().position(|(_, matches)| *matches);
    assert!(matching.is_none_or(|at| at + 1 == tried.len()), "tried after a match");
    assert!(matching.is_some() || tried.len() == record.routes().count(), "not all were tried");
    matching.map(|at| tried[at].0)
}

#[test]
fn tried_routes_end_with_the_selected_one() {
    let mut routes = ["^/b", "/a", "^/d[0-9]", "[7-9]x", ".*"].map(|p| route(p, &["http://10.0.0.1:1"]));
    sort_routes(&mut routes);
    let mut bytes = Vec::new();
    let automata = Automata::build_quickly(&["^/d[0-9]", "[7-9]x"], 8 << 10).unwrap();
    encode(&key("t"), &routes, automata.as_bytes(), &mut bytes);
    let tried = |rest: &str| {
        let record = Record::new(&bytes, 0);
        let tried = record.tried(rest.as_bytes());
        tried.map(|(route, matches)| (str::from_utf8(route.pattern).unwrap(), matches)).collect::<Vec<_>>()
    };
    assert_eq!(tried("/d1"), [("/a", false), ("^/b", false), ("^/d[0-9]", true)]);
    assert_eq!(tried("/b/a"), [("/a", true)]);
    let none = [("/a", false), ("^/b", false), ("^/d[0-9]", false), ("[7-9]x", false), (".*", true)];
    assert_eq!(tried("/"), none);
    assert!(Record::new(&[], 0).tried(b"/").next().is_none());
}

proptest! {
    #[test]
    fn tried_agrees_with_select(
        patterns in proptest::sample::subsequence(
            vec!["/a", "^/b", r"\.p$", "^/c/$", "^/d[0-9]", "[7-9]x", "^/(d|e)1/", "b.c", "x+$", ".*"], 0..10,
        ),
        rest in "/[abcdex179./p]{0,8}",
    ) {
        let mut routes: Vec<_> = patterns.iter().map(|pattern| route(pattern, &["http://10.0.0.1:1", "http://[::1]:1"])).collect();
        sort_routes(&mut routes);
        let regexes: Vec<_> =
            routes.iter().map(|r| &r.pattern).filter(|p| p.matcher() == Matcher::Regex).map(Pattern::as_str).collect();
        let automata = Automata::build_quickly(&regexes, 8 << 10).unwrap();
        let mut bytes = Vec::new();
        encode(&key("t"), &routes, automata.as_bytes(), &mut bytes);
        let record = Record::new(&bytes, 0);
        let pattern = |route: Option<RouteView<'_>>| route.map(|route| route.pattern.to_vec());
        prop_assert_eq!(pattern(last_tried(&record, rest.as_bytes())), pattern(record.select(rest.as_bytes())));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let record = Record::new(&bytes, 0);
        let _ = (record.key(), record.plain());
        let pattern = |route: Option<RouteView<'_>>| route.map(|route| route.pattern.to_vec());
        prop_assert_eq!(pattern(last_tried(&record, b"/a")), pattern(record.select(b"/a")));
        for route in record.routes() {
            for backend in route.backends() {
                let _ = backend.to_string();
            }
        }
    }
}
