//! The state of a table: one word and one sentence.

use serde::Serialize;

use super::about::About;
use super::hold::Held;
use super::readiness::Readiness;
use crate::route::Kind;
use crate::table::{Header, LoadedFrom, SourceView};
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
    /// No connection to the source, or no answer; the last known routes are served.
    Disconnected,
    /// A removal is held back.
    Held,
    /// In step, but the proxy should not get requests.
    NotReady,
}

/// One word and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The word.
    pub state: State,
    /// The sentence.
    pub text: String,
}

/// The summary of a table with this hold and readiness.
pub fn summary(
    about: &About,
    header: &Header,
    source: &SourceView,
    held: Option<&Held>,
    readiness: &Readiness,
) -> Summary {
    let Summary { state, text } = of_source(about, header, source);
    let Summary { state, text } = match (readiness.why_not_though_loaded(), state) {
        (None, _) => Summary { state, text },
        (Some(why), State::InStep) => Summary { state: State::NotReady, text: format!("Not ready: {why}. {text}") },
        (Some(why), _) => Summary { state, text: format!("Not ready: {why}. {text}") },
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

/// The summary of the table and its source alone.
fn of_source(about: &About, header: &Header, source: &SourceView) -> Summary {
    let now = about.now;
    let records = Kind::ALL.map(|kind| (header.live(kind), kind));
    let counts: Vec<_> = records
        .into_iter()
        .filter(|&(count, kind)| count > 0 || kind == Kind::Tool)
        .map(|(count, kind)| counted(count, kind.as_str()))
        .collect();
    let counts = counts.join(", ");
    let since_then = |at: u64| span(now.saturating_sub(at) / 1000);
    let redis = match source.since {
        // The first attempt has neither failed nor ended.
        None => "Connecting to Redis".to_owned(),
        Some(at) => format!("Redis unreachable for {}", since_then(at)),
    };
    let age = header.age_seconds(now / 1000);
    let (state, text) = match header.loaded_from() {
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
            (State::Snapshot, format!("{redis}, serving the routes of the snapshot: {counts}{age}."))
        }
        Some(_) if !source.is_connected => {
            (State::Disconnected, format!("{redis}, serving the last known routes: {counts}."))
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
    Summary { state, text }
}

/// The time of day of Unix seconds: `14:05 UTC`.
fn of_clock(unix_seconds: u64) -> String {
    let minutes = unix_seconds / 60 % 1440;
    format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::about::Guard;
    use crate::admin::hold::held;
    use crate::admin::readiness::ReadyLimits;
    use crate::admin::testing::{TestTable, about};

    const NOW: u64 = 1_790_000_000;

    fn summary_of(about: &About, table: &TestTable) -> (State, String) {
        let (header, source) = (table.table().header(), table.table().source().read());
        let (held, readiness) = (held(about, header), about.readiness(header));
        let Summary { state, text } = summary(about, header, &source, held.as_ref(), &readiness);
        (state, text)
    }

    fn summaries(table: &TestTable, is_connected: bool, since: u64) -> (State, String) {
        table.table().source().set_connected(is_connected, since * 1000);
        summary_of(&about(NOW * 1000), table)
    }

    #[test]
    fn each_state_has_its_sentence() {
        let table = TestTable::new(10);
        let (state, text) = summary_of(&about(NOW * 1000), &table);
        assert_eq!(state, State::Loading);
        assert!(text.starts_with("Not loaded: reading routes from Redis"), "{text}");
        let (_, text) = summaries(&table, false, NOW - 240);
        assert!(text.starts_with("Not loaded: Redis has not answered"), "{text}");
        table.publish(Kind::Tool, "hello", &[(".*", &["http://10.0.0.1:80"])]);
        table.mark_restored(NOW - 3600);
        let want = "Redis unreachable for 4 min, serving the routes of the snapshot: 1 tool, last verified 60 min ago.";
        assert_eq!(summaries(&table, false, NOW - 240), (State::Snapshot, want.into()));
        table.mark_synced(NOW - 1);
        let want = "In step with Redis: 1 tool, no change since the start.";
        assert_eq!(summaries(&table, true, NOW - 100), (State::InStep, want.into()));
        table.table().source().next_change((NOW - 2) * 1000);
        assert_eq!(summaries(&table, true, 0).1, "In step with Redis: 1 tool, last change 2 s ago.");
        let want = "Redis unreachable for 4 min, serving the last known routes: 1 tool.";
        assert_eq!(summaries(&table, false, NOW - 240), (State::Disconnected, want.into()));
        table.mark_synced(NOW - 40);
        let want = "Redis has not answered for 40 s, serving the last known routes: 1 tool.";
        assert_eq!(summaries(&table, true, NOW - 100), (State::Disconnected, want.into()));
    }

    #[test]
    fn a_first_attempt_to_connect_is_no_outage() {
        let table = TestTable::new(10);
        table.mark_restored(NOW - 3600);
        let want = "Connecting to Redis, serving the routes of the snapshot: 0 tools, last verified 60 min ago.";
        assert_eq!(summary_of(&about(NOW * 1000), &table), (State::Snapshot, want.into()));
        table.mark_synced(NOW);
        let want = "Connecting to Redis, serving the last known routes: 0 tools.";
        assert_eq!(summary_of(&about(NOW * 1000), &table), (State::Disconnected, want.into()));
        assert!(summaries(&table, false, NOW).1.starts_with("Redis unreachable for 0 s, "));
    }

    #[test]
    fn a_proxy_that_is_not_ready_says_so_first() {
        let ready_limits = ReadyLimits { max_age: Some(Duration::from_secs(600)), drain_file: Some("/".into()) };
        let about = About { ready_limits, ..about(NOW * 1000) };
        let table = TestTable::new(10);
        let text = summary_of(&about, &table).1;
        assert!(text.starts_with("Not ready: draining, because / exists. Not loaded: reading routes"), "{text}");
        table.mark_synced(NOW);
        table.table().source().set_connected(true, NOW * 1000);
        let want = "Not ready: draining, because / exists. In step with Redis: 0 tools, no change since the start.";
        assert_eq!(summary_of(&about, &table), (State::NotReady, want.into()));
        table.mark_synced(NOW - 700);
        let (state, text) = summary_of(&about, &table);
        assert_eq!(state, State::Disconnected);
        let want = "Not ready: the routes were last verified 700 s ago, more than ready_max_age 600 s; draining, because / exists. Redis has not answered for 11 min, ";
        assert!(text.starts_with(want), "{text}");
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
        let want = "Removal of 2,900 records held back until 14:13 UTC; accept with: urlproxyctl accept-withdrawal.";
        assert_eq!(summary_of(&about, &table), (State::Held, want.into()));
        let ready_limits = ReadyLimits { drain_file: Some("/".into()), ..ReadyLimits::default() };
        let draining = About { ready_limits, ..about.clone() };
        let want = format!(
            "{want} Not ready: draining, because / exists. In step with Redis: 0 tools, no change since the start."
        );
        assert_eq!(summary_of(&draining, &table), (State::Held, want));
        table.note_held(2900, None);
        table.table().source().set_connected(false, (NOW - 5) * 1000);
        let (_, text) = summary_of(&about, &table);
        assert!(text.contains("until Redis answers again") && text.ends_with("last known routes: 0 tools."), "{text}");
    }
}
