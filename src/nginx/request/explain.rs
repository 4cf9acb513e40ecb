//! `/api/explain`: repeats the lookup of a request, on the code of the request path, for each location with `urlproxy`.

use std::cmp::Reverse;
use std::ptr;

use nginx_sys::{
    NGX_HTTP_BAD_REQUEST, NGX_HTTP_MOVED_PERMANENTLY, NGX_HTTP_SERVICE_UNAVAILABLE, NGX_HTTP_TEMPORARY_REDIRECT,
    nginx_version,
};

use super::endpoint::{Destination, Endpoint};
use super::redirect;
use super::route::{Outcome, RequestRoute};
use super::search::{Target, Trace, look_up};
use crate::admin::about::About;
use crate::admin::answer::ApiError;
use crate::admin::backend_state::BackendState;
use crate::admin::explain::{self as document, Decision, Explanation, Normalized, PatternTest};
use crate::admin::place::{LocationMatch, ServerMatch};
use crate::admin::query::{Query, shown};
use crate::admin::request_host::{self, HostRules};
use crate::admin::why::{self, Fallback, MovedSeen, Seen, Step};
use crate::directive::location::{DefaultRoute, Mode};
use crate::nginx::conf::location::LocationConf;
use crate::nginx::conf::routed::RoutedLocation;
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::pool::Pool;
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::uri::Uri;
use crate::route::Kind;
use crate::table::{HashedKey, HealthKey, Lookup, Record};

/// Most decisions in one answer: a configuration may have thousands of locations.
const MAX_DECISIONS: usize = 32;

/// The parameters of the page.
pub(super) const PARAMETERS: &[&str] = &["host", "uri"];

/// Explains what each location with `urlproxy` for this table does with a request for the parameters `host` and `uri`, both as
/// a client sends them. The best match comes first.
pub(super) fn explain(
    request: Request<'_>,
    about: &About,
    table: &TableConf,
    query: &Query,
) -> Result<Explanation, ApiError> {
    let main = request.main_conf().ok_or(ApiError::Memory)?;
    let host = query.get("host").unwrap_or_default();
    let missing = || ApiError::BadRequest("no parameter \"uri\", expected e.g. uri=/hello/".into());
    let uri = query.get("uri").ok_or_else(missing)?;
    let refused = |name, value, example| {
        let value = shown(value);
        ApiError::BadRequest(format!("nginx refuses {name} {value} with 400, expected e.g. \"{example}\""))
    };
    let rules = HostRules::of_nginx(nginx_version);
    let normal = request_host::normalize(host, rules).ok_or_else(|| refused("host", host, "tools.example.org"))?;
    let host_text = text(&normal);
    let routed = main.routed().ok_or(ApiError::Memory)?;
    let of_table = |location: &&RoutedLocation| location.settings.table().is_some_and(|other| ptr::eq(other, table));
    let locations = routed.iter().filter(of_table).map(|location| (location, location.match_host(&host_text)));
    // Some URIs are refused only if slashes are merged.
    let (merged, unmerged) = (request.parse_uri(uri, true), request.parse_uri(uri, false));
    let parsed = |location: &RoutedLocation| if location.merges_slashes { &merged } else { &unmerged };
    let best = locations.clone().min_by_key(|(_, server_match)| Reverse(*server_match));
    if best.map_or(&merged, |(location, _)| parsed(location)).is_none() {
        return Err(refused("uri", uri, "/hello/x?y=1"));
    }
    let places = locations.filter_map(|(location, server_match)| {
        let uri = parsed(location).as_ref()?;
        Some(Place { location, uri, server_match, location_match: location.name.match_path(uri.path) })
    });
    let mut places: Vec<_> = places.collect();
    places.sort_by_key(|place| Reverse((place.server_match, place.location_match)));
    let asked = Asked { pool: request.pool(), table, host: &normal, written: uri, about };
    let omitted = places.len().saturating_sub(MAX_DECISIONS);
    let mut decisions = Vec::new();
    for place in places.iter().take(MAX_DECISIONS) {
        let decision = asked.decide(place).ok_or(ApiError::Memory)?;
        // A server block for each port usually repeats its locations.
        if !decisions.contains(&decision) {
            decisions.push(decision);
        }
    }
    Ok(Explanation { host: text(host), uri: text(uri), table: table.name.clone(), decisions, omitted })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A location, and how well it matches.
struct Place<'a> {
    location: &'a RoutedLocation,
    uri: &'a Uri<'a>,
    server_match: ServerMatch,
    location_match: LocationMatch,
}

/// The request to explain.
struct Asked<'a> {
    /// The pool of the request for the explanation.
    pool: Pool<'a>,
    table: &'a TableConf,
    /// Normalized.
    host: &'a [u8],
    /// The URI as sent by the client.
    written: &'a [u8],
    about: &'a About,
}

impl<'a> Asked<'a> {
    /// The decision of one location. `None` if out of memory.
    fn decide(&self, place: &Place<'a>) -> Option<Decision> {
        let (location, path) = (place.location, place.uri.path);
        let conf = &location.settings;
        let target = Target::of(conf.options.mode(), path, || self.host);
        let named = if let Target::Tool(path) = &target { path.tool } else { b"" };
        let mut steps = Steps::default();
        let mut route = RequestRoute::new(conf, self.table, path, named);
        look_up(&mut route, self.pool, &target, true, &mut steps)?;
        let Steps(steps) = steps;
        let result = route.outcome.result();
        let status = match route.outcome {
            Outcome::Route | Outcome::Default => None,
            Outcome::Redirect => Some(NGX_HTTP_TEMPORARY_REDIRECT as u16),
            Outcome::Moved => Some(NGX_HTTP_MOVED_PERMANENTLY as u16),
            Outcome::Miss => Some(conf.options.miss_status()),
            Outcome::NoHost => Some(NGX_HTTP_BAD_REQUEST as u16),
            Outcome::Unready => Some(NGX_HTTP_SERVICE_UNAVAILABLE as u16),
        };
        let location_header = || redirect::location(conf, self.host, path, self.written, place.uri.args);
        let is_redirect = matches!(route.outcome, Outcome::Redirect | Outcome::Moved);
        let why = why::why(result, &describe_target(conf, &target, self.host), &describe_fallback(conf), &steps);
        let is_tool = matches!(target, Target::Tool(_));
        let (rest, tool) = match &target {
            Target::Tool(path) => (path.rest, Some(text(path.tool))),
            Target::Domain(_) | Target::OtherHost | Target::NoHost => (path, None),
        };
        let patterns = tests(steps);
        debug_assert!(
            route.version.is_none()
                || route.outcome == Outcome::Unready
                || patterns.last().is_some_and(|test| test.matched && test.pattern == text(route.pattern)),
            "the patterns tried end with the one that the request path chose"
        );
        Some(Decision {
            server: location.server_names.iter().map(ToString::to_string).collect(),
            location: location.name.to_string(),
            server_matches: place.server_match.is_match(),
            location_matches: place.location_match.is_match(),
            mode: describe_mode(conf.options.mode()),
            domain: if let Mode::Subdomain(domain) = conf.options.mode() { Some(domain.to_string()) } else { None },
            normalized: Normalized { host: text(self.host), path: text(path), tool, rest: text(rest) },
            result,
            why,
            status,
            redirect: is_redirect.then(location_header).flatten().map(|location| text(&location)),
            tool: (is_tool || !route.tool.is_empty()).then(|| text(route.tool)),
            record: match route.outcome {
                Outcome::Moved => Some(text(route.domain)),
                _ => patterns.last().filter(|test| test.matched).map(|test| test.record.clone()),
            },
            patterns,
            backends: route.endpoints().iter().filter_map(|backend| self.backend_state(&route, backend)).collect(),
            origin: None,
        })
    }

    /// A backend and its health.
    fn backend_state(&self, route: &RequestRoute<'_>, backend: &Endpoint<'_>) -> Option<BackendState> {
        let key = match backend.destination {
            Destination::Addr(addr) if route.endpoints().len() > 1 => {
                Some(HealthKey::new(route.owner, backend.scheme, addr))
            }
            Destination::Addr(_) | Destination::Name(..) => None,
        };
        Some(BackendState::new(self.about, self.table.table.get()?, backend.to_string(), key))
    }
}

/// Records the steps of a lookup.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Trace for &mut Steps {
    fn unloaded(&mut self, kind: Kind) {
        self.0.push(Step::Unloaded(kind));
    }

    fn sought(&mut self, key: &HashedKey<'_>, found: &Lookup<'_>, rest: &[u8]) {
        let key = key.key().to_bytes();
        let (kind, name) = Kind::split(&key);
        let name = text(name);
        let seen = match found {
            Lookup::Found(record) => try_patterns(record, &name, rest),
            Lookup::Absent => Seen::Absent,
            Lookup::Contended => Seen::Contended,
        };
        self.0.push(Step::Sought { kind, name, seen });
    }

    fn contended_redirect(&mut self) {
        self.0.push(Step::ContendedRedirect);
    }

    fn sought_moved(&mut self, key: &HashedKey<'_>, found: &Lookup<'_>) {
        let key = key.key().to_bytes();
        let (_, name) = Kind::split(&key);
        let seen = match found {
            Lookup::Found(_) => MovedSeen::Found,
            Lookup::Absent => MovedSeen::Absent,
            Lookup::Contended => MovedSeen::Contended,
        };
        self.0.push(Step::SoughtMoved { name: text(name), seen });
    }
}

fn try_patterns(record: &Record<'_>, name: &str, rest: &[u8]) -> Seen {
    let tests: Vec<_> =
        record.tried(rest).map(|(route, matched)| PatternTest::new(name, route.pattern, rest, matched)).collect();
    if tests.is_empty() { Seen::Building } else { Seen::Tried(tests) }
}

/// The patterns tried in all steps.
fn tests(steps: Vec<Step>) -> Vec<PatternTest> {
    let tests = steps.into_iter().filter_map(|step| match step {
        Step::Sought { seen: Seen::Tried(tests), .. } => Some(tests),
        _ => None,
    });
    tests.flatten().collect()
}

fn describe_mode(mode: &Mode) -> document::Mode {
    match mode {
        Mode::Path => document::Mode::Path,
        Mode::Subdomain(_) => document::Mode::Subdomain,
        Mode::Domain => document::Mode::Domain,
    }
}

fn describe_target(conf: &LocationConf, target: &Target<'_>, host: &[u8]) -> why::Target {
    match target {
        Target::Tool(path) => why::Target::Tool(text(path.tool)),
        Target::Domain(host) => why::Target::Domain(text(host)),
        Target::OtherHost => {
            let domain =
                if let Mode::Subdomain(domain) = conf.options.mode() { domain.to_string() } else { String::new() };
            why::Target::OtherHost { host: text(host), domain }
        }
        Target::NoHost => why::Target::NoHost(describe_mode(conf.options.mode())),
    }
}

fn describe_fallback(conf: &LocationConf) -> Fallback {
    match conf.options.default_route() {
        DefaultRoute::Off => Fallback::Off,
        DefaultRoute::Tool(tool) => Fallback::Tool(text(tool.name())),
        DefaultRoute::Backend(backend) => Fallback::Backend(backend.to_string()),
    }
}
