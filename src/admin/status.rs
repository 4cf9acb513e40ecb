//! `/api/status`: the state of the table, its source and its statistics, and one sentence about it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::about::{About, seconds};
use super::answer::Answer;
use crate::route::Kind;
use crate::table::{Header, LoadedFrom, REASONS, RequestResult, ResyncCause, SourceView, Table};
use crate::text::{counted, span};

/// Seconds without an answer from the source after which the table is no longer called in step.
const LATE_SECONDS: u64 = 5;

/// The state of a table, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In step with the source.
    InStep,
    /// Never loaded.
    Loading,
    /// Loaded from the snapshot; the source has not answered yet.
    Snapshot,
    /// The source does not answer; the last known routes are served.
    Disconnected,
    /// A removal is held back.
    Held,
}

#[derive(Serialize)]
struct Status<'a> {
    table: &'a str,
    now: f64,
    summary: Summary,
    counts: Counts,
    capacity: Capacity,
    generation: u64,
    age_seconds: Option<u64>,
    last_change_at: Option<f64>,
    source: Source<'a>,
    held: Option<Held>,
    snapshot: Option<Snapshot>,
    rejected: Rejected,
    refused_total: u64,
    displaced_total: u64,
    contended_total: u64,
    requests: BTreeMap<&'static str, [u64; 5]>,
    keepalive: Keepalive,
    build: Build,
}

/// One word and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The word.
    pub state: State,
    /// The sentence.
    pub text: String,
}

#[derive(Serialize)]
struct Counts {
    tools: u64,
    redirects: u64,
    domains: u64,
    routes: u64,
}

#[derive(Serialize)]
struct Capacity {
    records: usize,
    memory_bytes: u64,
    memory_used_bytes: u64,
    largest_free_bytes: u64,
}

#[derive(Serialize)]
struct Source<'a> {
    url: &'a str,
    connected: bool,
    since: Option<f64>,
    error: Option<String>,
    last_push_at: Option<f64>,
    last_resync_at: Option<f64>,
    resyncs: BTreeMap<&'static str, u64>,
}

/// A removal that is held back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    records: u64,
    since: f64,
    ends_at: Option<f64>,
    accept_file: String,
}

#[derive(Serialize)]
struct Snapshot {
    path: String,
    written_at: Option<f64>,
    failed: bool,
}

#[derive(Serialize)]
struct Rejected {
    routes: u64,
    by_reason: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Keepalive {
    idle: u64,
    reused_total: u64,
    opened_total: u64,
    evicted_total: u64,
}

#[derive(Serialize)]
struct Build {
    version: &'static str,
    id: &'static str,
    nginx: &'static str,
}

/// The answer for a table.
pub fn status(about: &About, table: &Table<'_>) -> Answer {
    let (header, source, capacity) = (table.header(), table.source().read(), table.capacity());
    let tally = table.worker_tally();
    let held = held(about, header);
    let value = Status {
        table: &about.table,
        now: about.now_seconds(),
        summary: summary(about, header, &source, held.as_ref()),
        counts: Counts {
            tools: header.live(Kind::Tool),
            redirects: header.live(Kind::Redirect),
            domains: header.live(Kind::Domain),
            routes: header.live_routes(),
        },
        capacity: Capacity {
            records: capacity.tools,
            memory_bytes: header.live_bytes() + header.free_bytes(),
            memory_used_bytes: header.live_bytes(),
            largest_free_bytes: header.largest_free_bytes(),
        },
        generation: header.changes(),
        age_seconds: header.age_seconds(about.now / 1000),
        last_change_at: source.last_change.map(seconds),
        source: Source {
            url: &about.source,
            connected: source.is_connected,
            since: source.since.map(seconds),
            error: table.notes().error(),
            last_push_at: source.last_push.map(seconds),
            last_resync_at: source.last_resync.map(seconds),
            resyncs: ResyncCause::ALL.into_iter().map(|cause| cause.as_str()).zip(source.resyncs).collect(),
        },
        held,
        snapshot: about.snapshot.as_ref().map(|path| Snapshot {
            path: path.display().to_string(),
            written_at: source.snapshot_written.map(seconds),
            failed: source.has_snapshot_failed,
        }),
        rejected: Rejected {
            routes: header.rejected(),
            by_reason: REASONS.into_iter().zip(source.rejected).filter(|(_, count)| *count > 0).collect(),
        },
        refused_total: header.refused_full(),
        displaced_total: header.displaced(),
        contended_total: header.contended(),
        requests: RequestResult::ALL.into_iter().map(RequestResult::as_str).zip(tally.by_result).collect(),
        keepalive: Keepalive {
            idle: tally.idle,
            reused_total: tally.reused,
            opened_total: tally.opened,
            evicted_total: tally.evicted,
        },
        build: Build { version: about.build.version, id: about.build.id, nginx: about.build.nginx },
    };
    Answer::json_value(&value)
}

/// The hold of the withdrawal guard, if there is one.
pub fn held(about: &About, header: &Header) -> Option<Held> {
    let (records, guard) = (header.held(), about.guard.as_ref()?);
    if records == 0 {
        return None;
    }
    let now = about.now / 1000;
    let at = |monotonic: u64| (now + monotonic).saturating_sub(about.monotonic_seconds) as f64;
    let first = header.held_first().unwrap_or(about.monotonic_seconds);
    let ends_at = header.held_since().map(|since| {
        let latest = first.saturating_add(guard.longest.as_secs());
        at(since.saturating_add(guard.hold.as_secs()).min(latest))
    });
    Some(Held { records, since: at(first), ends_at, accept_file: guard.accept_file.display().to_string() })
}

/// When the hold of the withdrawal guard ends, in Unix seconds.
pub fn hold_end(about: &About, header: &Header) -> Option<f64> {
    held(about, header)?.ends_at
}

fn summary(about: &About, header: &Header, source: &SourceView, held: Option<&Held>) -> Summary {
    let now = about.now;
    let records = Kind::ALL.map(|kind| (header.live(kind), kind));
    let counts: Vec<_> = records
        .into_iter()
        .filter(|&(count, kind)| count > 0 || kind == Kind::Tool)
        .map(|(count, kind)| counted(count, kind.as_str()))
        .collect();
    let counts = counts.join(", ");
    let since_then = |at: u64| span(now.saturating_sub(at) / 1000);
    let since = source.since.map_or_else(String::new, |at| format!(" for {}", since_then(at)));
    let age = header.age_seconds(now / 1000);
    let (state, text) = match header.loaded_from() {
        // The first attempt has neither failed nor ended.
        None if source.since.is_none() => (
            State::Loading,
            "Not loaded: reading routes from Redis; requests are answered with 503 until then.".to_owned(),
        ),
        None => (
            State::Loading,
            "Not loaded: Redis has not answered since nginx started; requests are answered with 503.".to_owned(),
        ),
        Some(LoadedFrom::Snapshot) if !source.is_connected => {
            let age = age.map_or_else(String::new, |age| format!(", last verified {} ago", span(age)));
            (State::Snapshot, format!("Redis unreachable{since}, serving the routes of the snapshot: {counts}{age}."))
        }
        Some(_) if !source.is_connected => {
            (State::Disconnected, format!("Redis unreachable{since}, serving the last known routes: {counts}."))
        }
        Some(_) if age.is_some_and(|age| age > LATE_SECONDS) => {
            let late = age.map_or_else(String::new, |age| format!(" for {}", span(age)));
            (State::Disconnected, format!("Redis has not answered{late}, serving the last known routes: {counts}."))
        }
        Some(_) => {
            let change = source.last_change.map_or_else(
                || ", no change since the start".to_owned(),
                |at| format!(", last change {} ago", since_then(at)),
            );
            (State::InStep, format!("In step with Redis: {counts}{change}."))
        }
    };
    let Some(held) = held else { return Summary { state, text } };
    let until = match held.ends_at {
        Some(at) => format!(" until {}", of_clock(at as u64)),
        None => " until Redis answers again and the hold has passed".to_owned(),
    };
    let records = counted(held.records, "record");
    let held = format!("Removal of {records} held back{until}; accept with: urlproxyctl accept-withdrawal.");
    // An outage matters as well.
    match state {
        State::InStep => Summary { state: State::Held, text: held },
        _ => Summary { state: State::Held, text: format!("{held} {text}") },
    }
}

/// The time of day of Unix seconds: `14:05 UTC`.
fn of_clock(unix_seconds: u64) -> String {
    let minutes = unix_seconds / 60 % 1440;
    format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::admin::about::Guard;
    use crate::admin::testing::{TestTable, about, body};
    use crate::table::SnapshotState;

    const NOW: u64 = 1_790_000_000;

    fn shown(about: &About, table: &TestTable) -> Value {
        serde_json::from_str(&body(table, status(about, &table.table()).page)).unwrap()
    }

    fn summary_of(about: &About, table: &TestTable) -> (String, String) {
        let shown = shown(about, table);
        let word = |name: &str| shown["summary"][name].as_str().unwrap().to_owned();
        (word("state"), word("text"))
    }

    fn summaries(table: &TestTable, is_connected: bool, since: u64) -> (String, String) {
        table.table().source().set_connected(is_connected, since * 1000);
        summary_of(&about(NOW * 1000), table)
    }

    #[test]
    fn each_state_has_its_sentence() {
        let table = TestTable::new(10);
        let (state, text) = summary_of(&about(NOW * 1000), &table);
        assert_eq!(state, "loading");
        assert!(text.starts_with("Not loaded: reading routes from Redis"), "{text}");
        let (_, text) = summaries(&table, false, NOW - 240);
        assert!(text.starts_with("Not loaded: Redis has not answered"), "{text}");
        table.publish(Kind::Tool, "hello", &[(".*", &["http://10.0.0.1:80"])]);
        table.mark_restored(NOW - 3600);
        let want = "Redis unreachable for 4 min, serving the routes of the snapshot: 1 tool, last verified 60 min ago.";
        assert_eq!(summaries(&table, false, NOW - 240), ("snapshot".into(), want.into()));
        table.mark_synced(NOW - 1);
        let want = "In step with Redis: 1 tool, no change since the start.";
        assert_eq!(summaries(&table, true, NOW - 100), ("in_step".into(), want.into()));
        table.table().source().next_change((NOW - 2) * 1000);
        assert_eq!(summaries(&table, true, 0).1, "In step with Redis: 1 tool, last change 2 s ago.");
        let want = "Redis unreachable for 4 min, serving the last known routes: 1 tool.";
        assert_eq!(summaries(&table, false, NOW - 240), ("disconnected".into(), want.into()));
        table.mark_synced(NOW - 40);
        let want = "Redis has not answered for 40 s, serving the last known routes: 1 tool.";
        assert_eq!(summaries(&table, true, NOW - 100), ("disconnected".into(), want.into()));
    }

    #[test]
    fn a_hold_tells_its_end_and_how_to_accept_it() {
        let table = TestTable::new(10);
        table.mark_synced(NOW);
        table.table().source().set_connected(true, NOW * 1000);
        table.note_held(2900, Some(900));
        let guard = Guard {
            hold: Duration::from_secs(120),
            longest: Duration::from_secs(240),
            accept_file: "/run/urlproxy/tools.accept".into(),
        };
        let about = About { guard: Some(guard), ..about(NOW * 1000) };
        let (state, text) = summary_of(&about, &table);
        assert_eq!(state, "held");
        let want = "Removal of 2,900 records held back until 14:13 UTC; accept with: urlproxyctl accept-withdrawal.";
        assert_eq!(text, want);
        let held = json!({
            "records": 2900, "since": (NOW - 100) as f64, "ends_at": (NOW + 20) as f64,
            "accept_file": "/run/urlproxy/tools.accept",
        });
        assert_eq!(shown(&about, &table)["held"], held);
        table.note_held(2900, None);
        table.table().source().set_connected(false, (NOW - 5) * 1000);
        let (_, text) = summary_of(&about, &table);
        assert!(text.contains("until Redis answers again") && text.ends_with("last known routes: 0 tools."), "{text}");
        assert_eq!(shown(&about, &table)["held"]["ends_at"], Value::Null);
    }

    #[test]
    fn figures_have_the_documented_shape() {
        let table = TestTable::new(10);
        table.mark_synced(NOW);
        let source = table.table().source();
        source.note_resync(ResyncCause::Flush, NOW * 1000 + 500);
        source.set_snapshot(SnapshotState::Written(NOW * 1000));
        table.table().notes().set_error(Some("connection refused"));
        let about = About { snapshot: Some("/var/lib/x".into()), ..about(NOW * 1000) };
        let shown = shown(&about, &table);
        assert_eq!(shown["source"]["resyncs"], json!({"connect": 0, "interval": 0, "flush": 1, "guard": 0}));
        assert_eq!(shown["source"]["last_resync_at"], json!(NOW as f64 + 0.5));
        assert_eq!(shown["source"]["error"], json!("connection refused"));
        assert_eq!(shown["snapshot"], json!({"path": "/var/lib/x", "written_at": NOW as f64, "failed": false}));
        assert_eq!(shown["requests"]["miss"], json!([0, 0, 0, 0, 0]));
        assert_eq!(shown["rejected"], json!({"routes": 0, "by_reason": {}}));
    }
}
