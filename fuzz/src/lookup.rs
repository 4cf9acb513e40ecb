//! A small table and a request, in each mode: the lookup finds the route that a naive model finds, which sorts by the documented order
//! and asks the `regex` crate.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use arbitrary::{Arbitrary, Unstructured};
use regex::bytes::{Regex, RegexBuilder};
use urlproxy::registry::{Admission, RawRoutes};
use urlproxy::route::{
    Automata, AutomataLimits, Kind, LookupKey, MAX_AUTOMATA_BYTES, Matcher, PathRequest, Route, RouteKey, label_below,
    normal_host, split_path,
};
use urlproxy::sync::admit_into_zone;
use urlproxy::table::{Capacity, Lookup, OwnedTable, Record, Scratch, Table, Writer};

const CAPACITY: Capacity =
    Capacity { buckets: 3, cells: 6000, tools: 64, health: 1, workers: 1, series: 1, notes: 1, questions: 1 };
const TOOLS: [&str; 8] = ["", "a", "hello", "a.b", "%41", "rhello", "wîki", "12345678"];
const DOMAINS: [&str; 6] = ["www.example.org", "*.example.org", "*.www.example.org", "localhost", "[::1]", "10.0.0.1"];
const HOSTS: [&str; 10] = [
    "www.example.org",
    "a.www.example.org",
    "b.example.org",
    "example.org",
    "localhost",
    "[::1]",
    "[0:0::1]",
    "10.0.0.1",
    "*.example.org",
    "hello.toolforge.org",
];
/// Parts of patterns, and how many bytes of literal text each has in every match.
const PIECES: [(&str, usize); 16] = [
    ("/", 1),
    ("/a", 2),
    ("b", 1),
    ("/x/", 3),
    (r"\.php", 4),
    ("[0-9]", 0),
    ("[a-c]+", 0),
    (".*", 0),
    (".", 0),
    ("a?", 0),
    ("(?:ab|c)", 1),
    ("(?:ab){2}", 4),
    (r"\xff", 1),
    ("%41", 3),
    (r"\n", 1),
    ("[^/]", 0),
];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    tools: Vec<(u8, Vec<(PatternInput, u8)>)>,
    redirects: [bool; TOOLS.len()],
    domains: [Option<u8>; DOMAINS.len()],
    default: Option<u8>,
    tool: u8,
    host: HostInput<'a>,
    path: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum HostInput<'a> {
    Known(u8),
    Any(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct PatternInput {
    at_start: bool,
    at_end: bool,
    pieces: [u8; 3],
    count: u8,
}

impl PatternInput {
    /// The pattern, and its bytes of literal text.
    fn build(&self) -> (String, usize) {
        let mut text = if self.at_start { "^".to_owned() } else { String::new() };
        let mut literal_len = 0;
        for piece in self.pieces.iter().take(usize::from(self.count % 4)) {
            let (piece, bytes) = PIECES[usize::from(*piece) % PIECES.len()];
            text.push_str(piece);
            literal_len += bytes;
        }
        text.push_str(if self.at_end { "$" } else { "" });
        (text, literal_len)
    }
}

/// What the model knows of a tool or domain: patterns in matching order, with one backend each.
type Model = BTreeMap<Vec<u8>, Vec<(String, String)>>;

thread_local! {
    static TABLE: &'static OwnedTable = Box::leak(Box::new(OwnedTable::new(CAPACITY)));
    static REGEXES: RefCell<HashMap<String, Regex>> = RefCell::default();
    static PREPARED: RefCell<HashMap<Fields, Option<Prepared>>> = RefCell::default();
}

/// Patterns with their bytes of literal text, and backends.
type Fields = BTreeMap<String, (usize, String)>;
/// The routes of a tool, in matching order, and their automata.
type Prepared = (Vec<Route>, Automata);

pub fn check(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let table = TABLE.with(|table| table.table());
    let (mut writer, recovered) = Writer::attach(table);
    assert_eq!((recovered.tools, recovered.damaged), (0, 0), "the last run has emptied the table");
    let model = publish(&mut writer, &input);
    look_up(&table, &model, &input);
    for key in model.keys() {
        assert!(writer.withdraw(key));
    }
}

fn publish(writer: &mut Writer<'_>, input: &Input<'_>) -> Model {
    let mut model = Model::new();
    for (number, patterns) in &input.tools {
        let name = TOOLS[usize::from(*number) % TOOLS.len()].as_bytes();
        let mut fields = BTreeMap::new();
        for (number, (pattern, backend)) in patterns.iter().enumerate() {
            let (text, literal_len) = pattern.build();
            fields.insert(text, (literal_len, format!("http://10.0.{number}.{backend}:80")));
        }
        publish_tool(writer, &mut model, name, &fields);
    }
    for (name, _) in TOOLS.iter().zip(input.redirects).filter(|(_, is_there)| *is_there) {
        if let Ok(key) = RouteKey::try_new(Kind::Redirect, name.as_bytes()) {
            writer.publish(&key, &[]).expect("the table has room");
            model.insert(key.as_bytes().to_vec(), Vec::new());
        }
    }
    for (name, backend) in DOMAINS.iter().zip(input.domains) {
        let Some(backend) = backend.map(|backend| format!("https://10.1.0.{backend}:443")) else { continue };
        let key = RouteKey::try_new(Kind::Domain, name.as_bytes()).expect("a domain");
        let raw = RawRoutes::Set(vec![backend.as_bytes()]);
        let admitted = admit_into_zone(name.as_bytes(), &key, &raw, &Admission::default(), CAPACITY);
        writer.publish(&key, &admitted.routes).expect("the table has room");
        model.insert(key.as_bytes().to_vec(), vec![(".*".into(), backend)]);
    }
    model
}

fn publish_tool(writer: &mut Writer<'_>, model: &mut Model, name: &[u8], fields: &Fields) {
    let key = RouteKey::try_new(Kind::Tool, name).expect("a tool's name");
    let Some((routes, automata)) = prepare(&key, fields) else { return };
    if writer.publish_with(&key, &routes, automata.as_bytes()).is_err() {
        // Too large for a record: the old one is gone.
        model.remove(name);
        return;
    }
    let mut naive: Vec<_> = routes
        .iter()
        .map(|Route { pattern, .. }| {
            let (literal_len, url) = &fields[pattern.as_str()];
            let is_any = pattern.matcher() == Matcher::Any;
            ((is_any, if is_any { 0 } else { usize::MAX - literal_len }, pattern.as_str().to_owned()), url.clone())
        })
        .collect();
    naive.sort();
    model.insert(name.to_vec(), naive.into_iter().map(|((_, _, text), url)| (text, url)).collect());
}

/// `None` without routes, or with a pattern that is too costly. Most mutations leave most tools as they were.
fn prepare(key: &RouteKey, fields: &Fields) -> Option<Prepared> {
    let build = || {
        let raw = RawRoutes::Hash(fields.iter().map(|(p, (_, url))| (p.as_bytes(), url.as_bytes())).collect());
        let routes = admit_into_zone(b"prefix:x", key, &raw, &Admission::default(), CAPACITY).routes;
        let patterns = routes.iter().map(|route| &route.pattern);
        let regexes: Vec<_> = patterns.filter(|p| p.matcher() == Matcher::Regex).map(|p| p.as_str()).collect();
        let automata = Automata::build(&regexes, AutomataLimits::of_bytes(MAX_AUTOMATA_BYTES), &|| false);
        (automata.refused().is_empty() && !routes.is_empty()).then_some((routes, automata))
    };
    PREPARED.with_borrow_mut(|prepared| {
        if prepared.len() > 500 {
            prepared.clear();
        }
        prepared.entry(fields.clone()).or_insert_with(build).clone()
    })
}

fn look_up(table: &Table<'_>, model: &Model, input: &Input<'_>) {
    let path = &[b"/", input.path].concat()[..];
    let tool = TOOLS[usize::from(input.tool) % TOOLS.len()].as_bytes();
    let default = input.default.map(|number| TOOLS[usize::from(number) % TOOLS.len()].as_bytes());
    // Path mode: the client's path, and one that begins with a tool's name.
    for path in [path, &[b"/", tool, path].concat()] {
        let PathRequest { tool, rest } = split_path(path);
        let mut parts = path[1..].splitn(2, |&byte| byte == b'/');
        assert_eq!(parts.next(), Some(tool));
        assert_eq!(parts.next().map_or(b"/".to_vec(), |rest| [b"/", rest].concat()), rest);
        check_tool(table, model, tool, rest, path, default);
    }
    let host = match &input.host {
        HostInput::Known(number) => HOSTS[usize::from(*number) % HOSTS.len()].as_bytes(),
        HostInput::Any(host) => host,
    };
    // Subdomain mode.
    for host in [host, &[tool, b".toolforge.org"].concat()] {
        if let Some(tool) = label_below(host, b"toolforge.org") {
            assert_eq!([tool, b".toolforge.org"].concat(), host);
            check_tool(table, model, tool, path, path, default);
        }
    }
    // Domain mode.
    let mut scratch = Scratch::default();
    let mut found = None;
    if let Some(normal) = normal_host(host) {
        let keys = [Some(LookupKey::domain(&normal)), LookupKey::wildcard(&normal)];
        found = keys.into_iter().flatten().find_map(|key| seen(table.lookup(key, &mut scratch), path));
    }
    assert_eq!(found, domain_in(model, host).map(|routes| routes[0].clone()), "{}", host.escape_ascii());
}

/// The domain's routes, or those of the wildcard one label above.
fn domain_in<'m>(model: &'m Model, host: &[u8]) -> Option<&'m Vec<(String, String)>> {
    if host.starts_with(b"*") {
        return None;
    }
    let host = match std::str::from_utf8(host).ok().and_then(|host| host.strip_prefix('[')?.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<std::net::Ipv6Addr>().ok()?).into_bytes(),
        None => host.to_vec(),
    };
    let exact = model.get(&[b"/d", &host[..]].concat());
    let parent = || host.iter().position(|&byte| byte == b'.').filter(|&dot| dot > 0);
    exact.or_else(|| model.get(&[b"/d*", &host[parent()?..]].concat()))
}

/// The tool's route, else the default tool's for the whole path; and whether the tool is redirected.
fn check_tool(table: &Table<'_>, model: &Model, tool: &[u8], rest: &[u8], path: &[u8], default: Option<&[u8]>) {
    let mut scratch = Scratch::default();
    let hashed = table.hash_key(LookupKey::tool(tool));
    let mut found = seen(table.lookup_hashed(&hashed, &mut scratch), rest);
    let mut wanted = first_match(model, tool, rest);
    if let Some(default) = default
        && wanted.is_none()
    {
        assert_eq!(found, None, "{}", tool.escape_ascii());
        found = seen(table.lookup(default, &mut scratch), path);
        wanted = first_match(model, default, path);
    }
    assert_eq!(found, wanted, "{} {}", tool.escape_ascii(), rest.escape_ascii());
    let redirect = hashed.redirect().map(|key| matches!(table.lookup_hashed(&key, &mut scratch), Lookup::Found(_)));
    assert_eq!(redirect.unwrap_or(false), model.contains_key(&[b"/r", tool].concat()));
}

fn first_match(model: &Model, name: &[u8], rest: &[u8]) -> Option<(String, String)> {
    model.get(name)?.iter().find(|(pattern, _)| is_match(pattern, rest)).cloned()
}

fn is_match(pattern: &str, rest: &[u8]) -> bool {
    REGEXES.with_borrow_mut(|regexes| {
        if regexes.len() > 2000 {
            regexes.clear();
        }
        let regex = regexes.entry(pattern.to_owned());
        let compile = || RegexBuilder::new(pattern).unicode(false).build().expect("our patterns are valid");
        regex.or_insert_with(compile).is_match(rest)
    })
}

/// Pattern and backend of the record's route.
fn seen(found: Lookup<'_>, rest: &[u8]) -> Option<(String, String)> {
    let Lookup::Found(record) = found else { return None };
    let chosen = of_record(&record, rest);
    let tried = record.tried(rest).find(|(_, matches)| *matches).map(|(route, _)| route.pattern);
    assert_eq!(tried, chosen.as_ref().map(|(pattern, _)| pattern.as_bytes()), "explain and request agree");
    chosen
}

fn of_record(record: &Record<'_>, rest: &[u8]) -> Option<(String, String)> {
    let route = record.select(rest)?;
    let backend = route.first_backend().expect("a route has a backend");
    Some((String::from_utf8(route.pattern.to_vec()).expect("UTF-8"), backend.to_string()))
}
