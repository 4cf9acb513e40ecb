//! `/api/status`: the state of the table, its source and its statistics, and one sentence about it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::about::{About, seconds};
use super::answer::Answer;
use super::hold::{Held, held};
use super::summary::{Summary, summary};
use crate::route::Kind;
use crate::table::{REASONS, RequestResult, ResyncCause, Table};

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
    ready: bool,
    not_ready_because: Option<String>,
    draining: Option<bool>,
    drain_file: Option<String>,
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
    let (held, readiness) = (held(about, header), about.readiness(header));
    let value = Status {
        table: &about.table,
        now: about.now_seconds(),
        summary: summary(about, header, &source, held.as_ref(), &readiness),
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
        ready: readiness.is_ready(),
        not_ready_because: readiness.why_not(),
        draining: readiness.is_draining(),
        drain_file: about.ready_limits.drain_file.as_ref().map(|path| path.display().to_string()),
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::admin::about::Guard;
    use crate::admin::readiness::ReadyLimits;
    use crate::admin::testing::{TestTable, about, body};
    use crate::table::SnapshotState;

    const NOW: u64 = 1_790_000_000;

    fn shown(about: &About, table: &TestTable) -> Value {
        serde_json::from_str(&body(table, status(about, &table.table()).page)).unwrap()
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
    #[test]
    fn a_hold_names_its_times_and_its_file() {
        let table = TestTable::new(10);
        table.mark_synced(NOW);
        table.note_held(2900, Some(900));
        let guard = Guard {
            hold: Duration::from_secs(120),
            longest: Duration::from_secs(240),
            accept_file: "/run/urlproxy/tools.accept".into(),
        };
        let about = About { guard: Some(guard), ..about(NOW * 1000) };
        let held = json!({
            "records": 2900, "since": (NOW - 100) as f64, "ends_at": (NOW + 20) as f64,
            "accept_file": "/run/urlproxy/tools.accept",
        });
        assert_eq!(shown(&about, &table)["held"], held);
        table.note_held(2900, None);
        assert_eq!(shown(&about, &table)["held"]["ends_at"], Value::Null);
    }

    #[test]
    fn readiness_is_that_of_the_page_ready() {
        let table = TestTable::new(10);
        let ready = |file: Option<&str>| {
            let ready_limits = ReadyLimits { drain_file: file.map(Into::into), ..ReadyLimits::default() };
            let shown = shown(&About { ready_limits, ..about(NOW * 1000) }, &table);
            ["ready", "not_ready_because", "draining", "drain_file"].map(|name| shown[name].clone())
        };
        assert_eq!(ready(None), [json!(false), json!("the table was never loaded"), json!(false), Value::Null]);
        table.mark_synced(NOW);
        assert_eq!(ready(None), [json!(true), Value::Null, json!(false), Value::Null]);
        assert_eq!(ready(Some("/x/y")), [json!(true), Value::Null, json!(false), json!("/x/y")]);
        assert_eq!(ready(Some("/")), [json!(false), json!("draining, because / exists"), json!(true), json!("/")]);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml/x");
        let [is_ready, why, is_draining, _] = ready(file.to_str());
        assert_eq!((is_ready, is_draining), (json!(false), Value::Null));
        assert!(why.as_str().unwrap().starts_with("Not a directory"), "{why}");
    }
}
