//! `/api/routes/<tool>`: everything about one tool or domain.

use serde::Serialize;

use super::about::{About, seconds};
use super::answer::{Answer, ApiError};
use super::backend_state::BackendState;
use super::origin::{Origins, WithOrigins};
use super::query::{Query, shown};
use super::rejected::reason;
use crate::route::{Kind, LookupKey, RouteKey};
use crate::table::{
    Change, DURATION_BOUNDS_MILLISECONDS, HealthKey, Lookup, Record, RouteView, Scratch, SeriesView, Table, Tally,
};

/// The parameters.
pub const PARAMETERS: &[&str] = &["kind"];
/// Most changes that are listed.
const MAX_CHANGES: usize = 50;

#[derive(Serialize)]
struct Tool {
    table: String,
    kind: Kind,
    name: String,
    now: f64,
    routes: Vec<Route>,
    /// Whether the tool has its own host, to which it is redirected.
    redirect: bool,
    requests: [u64; 5],
    bytes: u64,
    milliseconds: u64,
    rate: Option<f64>,
    error_rate: Option<f64>,
    mean_milliseconds: Option<f64>,
    latency: Option<Latency>,
    rejected: Vec<Rejected>,
    changes: Vec<Changed>,
    /// Who registered each pattern; null while unknown.
    origin: Option<Origins>,
}

#[derive(Serialize)]
struct Route {
    pattern: String,
    backends: Vec<BackendState>,
}

/// Requests by duration, each in one bucket.
#[derive(Serialize)]
struct Latency {
    le: [f64; DURATION_BOUNDS_MILLISECONDS.len()],
    counts: Vec<u64>,
}

#[derive(Serialize)]
struct Rejected {
    kind: Kind,
    pattern: Option<String>,
    reason: &'static str,
    text: String,
}

#[derive(Serialize)]
struct Changed {
    at: f64,
    change: &'static str,
    kind: Kind,
    routes: u32,
    backend: String,
}

/// The answer for a tool, or a domain with `kind=domain`.
///
/// # Errors
/// There is no such tool or domain, and nothing is known about it.
pub fn tool(about: &About, table: &Table<'_>, query: &Query, name: &[u8]) -> Result<Answer, ApiError> {
    let kinds = [Kind::Tool, Kind::Domain].map(|kind| (kind.as_str(), kind));
    let kind = query.choice("kind", &kinds)?.unwrap_or(Kind::Tool);
    let absent = || ApiError::NotFound(format!("there is no {} {}", kind.as_str(), shown(name)));
    let key = RouteKey::try_new(kind, name).map_err(|_| absent())?;
    let mut scratch = Scratch::default();
    let has_redirect = kind == Kind::Tool
        && LookupKey::redirect(name)
            .is_some_and(|redirect| matches!(table.lookup(redirect, &mut scratch), Lookup::Found(_)));
    let is_named =
        |other: Kind, other_name: &[u8]| other_name == name && (other == Kind::Domain) == (kind == Kind::Domain);
    let rejected: Vec<Rejected> = table
        .notes()
        .rejected()
        .filter(|note| is_named(note.kind, &note.name))
        .map(|note| Rejected {
            kind: note.kind,
            pattern: note.pattern.map(|pattern| text(&pattern)),
            reason: reason(note.reason),
            text: note.text,
        })
        .collect();
    let last = table.source().read().changes;
    let numbers = (1..=last).rev().take(table.notes().changes_capacity() as usize);
    let changes = numbers.filter_map(|number| table.notes().change(number));
    let changes: Vec<Changed> =
        changes.filter(|change| is_named(change.kind, &change.name)).take(MAX_CHANGES).map(changed).collect();
    let (routes, counters) = match table.lookup(key.as_bytes(), &mut scratch) {
        Lookup::Found(record) => (routes(about, table, &record), Some(record.counters())),
        Lookup::Absent | Lookup::Contended => (Vec::new(), None),
    };
    if counters.is_none() && !has_redirect && rejected.is_empty() && changes.is_empty() {
        return Err(absent());
    }
    let tally = counters.and_then(|number| table.counters(number)).map_or_else(Tally::default, |line| line.tally());
    let series = counters.and_then(|number| table.series().find(|series| series.counters == number));
    let value = Tool {
        table: about.table.clone(),
        kind,
        name: text(name),
        now: about.now_seconds(),
        routes,
        redirect: has_redirect,
        requests: tally.by_class,
        bytes: tally.bytes,
        milliseconds: tally.milliseconds,
        rate: series.as_ref().map(|series| series.rate),
        error_rate: series.as_ref().map(|series| series.error_rate),
        mean_milliseconds: series.as_ref().and_then(|series| series.mean_milliseconds),
        latency: series.as_ref().map(latency),
        rejected,
        changes,
        origin: None,
    };
    let asked = (kind == Kind::Tool && counters.is_some()).then_some(name);
    Ok(Answer::json(WithOrigins::new(table, asked, value, |tool, origins| tool.origin = Some(origins))))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn latency(series: &SeriesView) -> Latency {
    Latency { le: DURATION_BOUNDS_MILLISECONDS.map(seconds), counts: series.requests.buckets.to_vec() }
}

fn changed(change: Change) -> Changed {
    Changed {
        at: seconds(change.at),
        change: change.change.as_str(),
        kind: change.kind,
        routes: change.routes,
        backend: change.backend,
    }
}

fn routes(about: &About, table: &Table<'_>, record: &Record<'_>) -> Vec<Route> {
    let route =
        |route: RouteView<'_>| Route { pattern: text(route.pattern), backends: backends(about, table, record, &route) };
    record.routes().map(route).collect()
}

/// The backends of a route, with their health.
pub fn backends(about: &About, table: &Table<'_>, record: &Record<'_>, route: &RouteView<'_>) -> Vec<BackendState> {
    let is_tracked = route.backend_count > 1;
    let state = |backend: crate::table::BackendView<'_>| {
        let addr = backend.socket_addr().filter(|_| is_tracked);
        let key = addr.map(|addr| HealthKey::new(record.owner(), backend.scheme, addr));
        BackendState::new(about, table, backend.to_string(), key)
    };
    route.backends().map(state).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admin::testing::{TestTable, about, body};
    use crate::table::{ChangeKind, HealthSettings, RejectedNote};

    fn asked(table: &TestTable, args: &str, name: &str) -> Result<Value, String> {
        let query = Query::parse(args.as_bytes(), PARAMETERS).map_err(|error| error.to_string())?;
        let about = about(1_790_000_000_000);
        let answer = tool(&about, &table.table(), &query, name.as_bytes()).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&body(table, answer.page)).unwrap())
    }

    #[test]
    fn routes_come_with_health() {
        let table = TestTable::new(10);
        table.publish(Kind::Tool, "a", &[("/x", &["http://10.0.0.1:1", "http://10.0.0.2:2"]), (".*", &["http://n:3"])]);
        table.publish(Kind::Redirect, "a", &[]);
        let t = table.table();
        let mut scratch = Scratch::default();
        let Lookup::Found(record) = t.lookup(&b"a"[..], &mut scratch) else { panic!() };
        let key = HealthKey::new(record.owner(), crate::route::Scheme::Http, "10.0.0.2:2".parse().unwrap());
        t.health().failed(key, 1000, HealthSettings::default());
        let shown = asked(&table, "", "a").unwrap();
        let want = json!([
            {"pattern": "/x", "backends": [
                {"url": "http://10.0.0.1:1", "health": "up", "until": null},
                {"url": "http://10.0.0.2:2", "health": "unavailable", "until": 1_790_000_011u64},
            ]},
            {"pattern": ".*", "backends": [{"url": "http://n:3", "health": "untracked", "until": null}]},
        ]);
        assert_eq!((&shown["routes"], &shown["redirect"]), (&want, &json!(true)));
        assert_eq!((&shown["rate"], &shown["latency"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn a_rejected_tool_is_known_and_a_missing_one_is_not() {
        let table = TestTable::new(10);
        let note = RejectedNote {
            kind: Kind::Tool,
            name: b"bad".to_vec(),
            pattern: Some(b"(".to_vec()),
            reason: 1,
            text: "unclosed group".into(),
        };
        table.table().notes().set_rejected(0, Some(&note));
        let change = |number, name: &str| Change {
            number,
            at: 1_789_999_999_500,
            change: ChangeKind::Removed,
            kind: Kind::Tool,
            name: name.as_bytes().to_vec(),
            routes: 0,
            backend: String::new(),
        };
        for (number, name) in [(1, "bad"), (2, "other")] {
            table.table().notes().add_change(&change(number, name));
            table.table().source().set_changes(number);
        }
        let shown = asked(&table, "", "bad").unwrap();
        let want = json!([{"kind": "tool", "pattern": "(", "reason": "pattern", "text": "unclosed group"}]);
        assert_eq!(shown["rejected"], want);
        let want = json!([{"at": 1_789_999_999.5, "change": "removed", "kind": "tool", "routes": 0, "backend": ""}]);
        assert_eq!((&shown["changes"], &shown["routes"]), (&want, &json!([])));
        assert_eq!(asked(&table, "", "none").unwrap_err(), "there is no tool \"none\"");
        assert_eq!(asked(&table, "kind=domain", "a/b").unwrap_err(), "there is no domain \"a/b\"");
        assert_eq!(asked(&table, "kind=x", "a").unwrap_err(), "invalid kind \"x\", expected one of tool, domain");
    }
}
