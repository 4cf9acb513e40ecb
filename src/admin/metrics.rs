//! `/metrics`: Prometheus text format 0.0.4. See <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

use super::about::{About, seconds};
use super::answer::Answer;
use super::hold::hold_end;
use super::page::{Page, Step};
use crate::route::Kind;
use crate::table::{
    DURATION_BOUNDS_MILLISECONDS, DurationHistogram, PROPAGATION_BOUNDS_MICROSECONDS, REASONS, RequestResult,
    ResyncCause, Scratch, SeriesView, SourceView, Table,
};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Tools that one step writes.
const TOOLS_PER_STEP: usize = 20;
/// The label value of all tools without metrics of their own. No tool's name has a slash.
const OTHERS: &str = "/other";
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The answer for a table.
pub fn metrics(about: &About, table: &Table<'_>) -> Answer {
    let mut series: Vec<_> = table.series().collect();
    // A stable order; two lines of the same record would be the same metric twice.
    series.sort_by_key(|series| series.counters);
    series.dedup_by_key(|series| series.counters);
    let page = MetricsPage {
        head: table_metrics(about, table),
        table: about.table.clone(),
        others: table.worker_tally().others,
        series,
        family: Family::Requests,
        next: 0,
    };
    Answer::json(page).with_content_type(CONTENT_TYPE)
}

/// The families of metrics per tool. All lines of a family must be adjacent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Requests,
    Durations,
}

struct MetricsPage {
    /// The metrics of the table, until they are written.
    head: String,
    table: String,
    others: DurationHistogram,
    series: Vec<SeriesView>,
    family: Family,
    next: usize,
}

impl Page for MetricsPage {
    fn step(&mut self, _: &Table<'_>, _: &mut Scratch, out: &mut Vec<u8>) -> Step {
        let mut text = Text { text: std::mem::take(&mut self.head), table: &self.table };
        if self.next == 0 {
            match self.family {
                Family::Requests => {
                    text.head(
                        "urlproxy_tool_requests_total",
                        "counter",
                        "Requests of the busiest tools, and of all others",
                    );
                    text.requests(&[("tool", OTHERS)], &self.others);
                }
                Family::Durations => {
                    let help = "Duration of requests of the busiest tools, and of all others";
                    text.head("urlproxy_tool_request_duration_seconds", "histogram", help);
                    text.durations(&[("tool", OTHERS)], &self.others);
                }
            }
        }
        for series in self.series.iter().skip(self.next).take(TOOLS_PER_STEP) {
            let label = label_of(series);
            let name = if series.kind == Kind::Domain { "domain" } else { "tool" };
            match self.family {
                Family::Requests => text.requests(&[(name, &label)], &series.requests),
                Family::Durations => text.durations(&[(name, &label)], &series.requests),
            }
        }
        self.next += TOOLS_PER_STEP;
        out.extend_from_slice(text.text.as_bytes());
        match self.family {
            _ if self.next < self.series.len() => Step::More,
            Family::Requests => {
                (self.family, self.next) = (Family::Durations, 0);
                Step::More
            }
            Family::Durations => Step::Done,
        }
    }
}

/// The name, or, if it is too long, its beginning and a number: no other label value is the same.
fn label_of(series: &SeriesView) -> String {
    let name = String::from_utf8_lossy(series.name());
    if series.is_truncated { format!("{name}/{}", series.counters) } else { name.into_owned() }
}

fn table_metrics(about: &About, table: &Table<'_>) -> String {
    let mut text = Text { text: String::new(), table: &about.table };
    let (header, source) = (table.header(), table.source().read());
    let build = about.build;
    text.head("urlproxy_build_info", "gauge", "The version that runs");
    text.sample("urlproxy_build_info", &[("version", build.version), ("build", build.id), ("nginx", build.nginx)], 1);
    let name = "urlproxy_table_records";
    text.head(name, "gauge", "Tools, redirects and domains in the table");
    for kind in Kind::ALL {
        text.sample(name, &[("kind", kind.as_str())], header.live(kind));
    }
    text.gauge("urlproxy_table_routes", "Routes of all tools and domains", header.live_routes());
    text.gauge("urlproxy_table_records_limit", "Most records that the table holds", table.capacity().tools);
    let memory = header.live_bytes() + header.free_bytes();
    text.gauge("urlproxy_table_memory_bytes", "Memory for records", memory);
    text.gauge("urlproxy_table_memory_used_bytes", "Memory in use by records", header.live_bytes());
    let help = "Largest record that fits without replacing another one";
    text.gauge("urlproxy_table_memory_largest_free_bytes", help, header.largest_free_bytes());
    let readiness = about.readiness(header);
    text.gauge("urlproxy_ready", "Whether the proxy should get requests", u8::from(readiness.is_ready()));
    if let Some(is_draining) = readiness.is_draining() {
        text.gauge("urlproxy_draining", "Whether an operator takes the proxy out of service", u8::from(is_draining));
    }
    let is_loaded = u8::from(header.is_loaded());
    text.gauge("urlproxy_table_loaded", "Whether the table was ever loaded", is_loaded);
    if let Some(age) = header.age_seconds(about.now / 1000) {
        text.gauge("urlproxy_table_age_seconds", "Time since the table was last in step with its source", age);
    }
    text.counter("urlproxy_table_changes_total", "Records published or withdrawn", header.changes());
    let help = "When a record last changed";
    text.gauge("urlproxy_table_last_change_timestamp_seconds", help, seconds(source.last_change.unwrap_or(0)));
    let name = "urlproxy_table_rejected_routes";
    text.head(name, "gauge", "Routes of the source that the table does not have");
    for (reason, count) in REASONS.into_iter().zip(source.rejected) {
        text.sample(name, &[("reason", reason)], count);
    }
    text.counter("urlproxy_table_refused_total", "Records refused because the table was full", header.refused_full());
    let help = "Changes without room, which withdrew the record";
    text.counter("urlproxy_table_displaced_total", help, header.displaced());
    let help = "Lookups that gave up because the record kept changing";
    text.counter("urlproxy_lookups_contended_total", help, header.contended());
    source_metrics(&mut text, about, table, &source);
    let tally = table.worker_tally();
    text.gauge("urlproxy_keepalive_idle_connections", "Idle connections to backends that are kept", tally.idle);
    text.counter("urlproxy_keepalive_reused_total", "Requests that reused a kept connection", tally.reused);
    text.counter("urlproxy_keepalive_opened_total", "Requests that found no kept connection", tally.opened);
    let help = "Kept connections closed to make room for others";
    text.counter("urlproxy_keepalive_evicted_total", help, tally.evicted);
    let name = "urlproxy_requests_total";
    text.head(name, "counter", "Finished requests by $urlproxy_result and status class");
    for (result, classes) in RequestResult::ALL.into_iter().zip(tally.by_result) {
        for (class, count) in CLASSES.into_iter().zip(classes) {
            text.sample(name, &[("result", result.as_str()), ("class", class)], count);
        }
    }
    text.text
}

fn source_metrics(text: &mut Text<'_>, about: &About, table: &Table<'_>, source: &SourceView) {
    let header = table.header();
    let is_connected = u8::from(source.is_connected);
    text.gauge("urlproxy_source_connected", "Whether the companion follows Redis", is_connected);
    let help = "When the last full comparison with Redis ended";
    let name = "urlproxy_source_last_resync_timestamp_seconds";
    text.gauge(name, help, seconds(source.last_resync.unwrap_or(0)));
    let help = "When Redis last reported changed keys";
    text.gauge("urlproxy_source_last_push_timestamp_seconds", help, seconds(source.last_push.unwrap_or(0)));
    let name = "urlproxy_source_resyncs_total";
    text.head(name, "counter", "Full comparisons with Redis, by cause");
    for (cause, count) in ResyncCause::ALL.into_iter().zip(source.resyncs) {
        text.sample(name, &[("cause", cause.as_str())], count);
    }
    text.counter("urlproxy_source_failures_total", "Failed attempts to follow Redis", source.failures);
    text.gauge("urlproxy_held_records", "Records that Redis lacks and the withdrawal guard holds", header.held());
    let help = "When the removal of held records begins; 0 without a hold, or while it must restart";
    text.gauge("urlproxy_hold_end_timestamp_seconds", help, hold_end(about, header).unwrap_or(0.0));
    if about.snapshot.is_some() {
        let help = "When the snapshot was last written";
        let name = "urlproxy_snapshot_written_timestamp_seconds";
        text.gauge(name, help, seconds(source.snapshot_written.unwrap_or(0)));
        let has_failed = u8::from(source.has_snapshot_failed);
        text.gauge("urlproxy_snapshot_failed", "Whether the last attempt to write it failed", has_failed);
    }
    let name = "urlproxy_propagation_seconds";
    text.head(name, "histogram", "Time from the push of a changed key until all workers route by it");
    let bounds = PROPAGATION_BOUNDS_MICROSECONDS.map(|bound| bound as f64 / 1e6);
    text.histogram(name, &[], &bounds, &source.propagation, source.propagation_microseconds as f64 / 1e6);
}

/// Metrics with the label `table`.
struct Text<'t> {
    text: String,
    table: &'t str,
}

impl Text<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        self.text.push_str("{table=\"");
        escape(&mut self.text, self.table);
        for (label, value) in labels {
            self.text.push_str("\",");
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "\"}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn requests(&mut self, labels: &[(&str, &str)], requests: &DurationHistogram) {
        for (class, count) in CLASSES.into_iter().zip(requests.by_class) {
            let labels: Vec<_> = labels.iter().copied().chain([("class", class)]).collect();
            self.sample("urlproxy_tool_requests_total", &labels, count);
        }
    }

    fn durations(&mut self, labels: &[(&str, &str)], requests: &DurationHistogram) {
        let bounds = DURATION_BOUNDS_MILLISECONDS.map(seconds);
        let (name, sum) = ("urlproxy_tool_request_duration_seconds", seconds(requests.milliseconds));
        self.histogram(name, labels, &bounds, &requests.buckets, sum);
    }

    /// `counts` has one more bucket than there are bounds.
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let bucket = format!("{name}_bucket");
        let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0_u64;
        for (bound, count) in bounds.zip(counts) {
            // The sum of damaged memory may be too large.
            total = total.wrapping_add(*count);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&bucket, &labels, total);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, total);
    }
}

/// Appends a label value.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::admin::readiness::ReadyLimits;
    use crate::admin::testing::{TestTable, about, body};
    use crate::table::{Finished, Lookup, Ranking, StatusClass};

    fn shown(table: &TestTable) -> String {
        body(table, metrics(&about(1_790_000_000_500), &table.table()).page)
    }

    fn value<'t>(text: &'t str, sample: &str) -> &'t str {
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in {text}"))
    }

    #[test]
    fn busiest_tools_have_their_own_samples_whatever_their_names() {
        let table = TestTable::new(300);
        let long = "x".repeat(200);
        let twin = format!("{}y", "x".repeat(199));
        let names = ["a\"b\\c", &long, &twin, "\u{202e}", "quiet"];
        for name in names {
            table.publish(Kind::Tool, name, &[(".*", &["http://10.0.0.1:1"])]);
        }
        table.publish(Kind::Domain, "a.org", &[(".*", &["http://10.0.0.1:1"])]);
        let t = table.table();
        let mut ranking = Ranking::new(t, 5);
        let request = |times: usize| {
            for name in names.iter().take(4).copied().chain(["/da.org"]) {
                let mut scratch = Scratch::default();
                let key = crate::route::RouteKey::from_table(name.as_bytes()).unwrap();
                let Lookup::Found(record) = t.lookup(key.as_bytes(), &mut scratch) else { panic!("{name}") };
                let line = t.counters(record.counters()).unwrap();
                let (result, class) = (RequestResult::Route, StatusClass::Success);
                let finished = Finished { result, class, bytes: 1, milliseconds: 30 };
                (0..times).for_each(|_| t.count_request(0, &finished, Some((line, line.ticket()))));
            }
        };
        request(10);
        ranking.update(Duration::from_secs(1));
        request(3);
        let text = shown(&table);
        let requests = "urlproxy_tool_requests_total{table=\"tools\",";
        assert_eq!(value(&text, &format!("{requests}tool=\"a\\\"b\\\\c\",class=\"2xx\"}}")), "3");
        assert_eq!(value(&text, &format!("{requests}domain=\"a.org\",class=\"2xx\"}}")), "3");
        assert_eq!(value(&text, &format!("{requests}tool=\"/other\",class=\"2xx\"}}")), "50");
        let bucket = "urlproxy_tool_request_duration_seconds_bucket{table=\"tools\",domain=\"a.org\",";
        assert_eq!(value(&text, &format!("{bucket}le=\"0.025\"}}")), "0");
        assert_eq!(value(&text, &format!("{bucket}le=\"0.1\"}}")), "3");
        let total = "urlproxy_requests_total{table=\"tools\",result=\"route\",class=\"2xx\"}";
        assert_eq!(value(&text, total), "65");
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(sample.to_owned()), "twice: {sample}");
            value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(text.ends_with('\n') && !text.contains("quiet"));
    }

    #[test]
    fn families_are_complete_and_named_by_convention() {
        let table = TestTable::new(10);
        table.mark_synced(1_790_000_000);
        let text = shown(&table);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let families: Vec<_> = types.collect();
        let distinct: HashSet<_> = families.iter().map(|(name, _)| *name).collect();
        assert_eq!(distinct.len(), families.len());
        for (name, kind) in families {
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert_eq!(value(&text, "urlproxy_table_loaded{table=\"tools\"}"), "1");
        assert_eq!(value(&text, "urlproxy_table_age_seconds{table=\"tools\"}"), "0");
        assert!(!text.contains("urlproxy_snapshot"));
        assert_eq!(value(&text, "urlproxy_ready{table=\"tools\"}"), "1");
        assert_eq!(value(&text, "urlproxy_draining{table=\"tools\"}"), "0");
    }

    #[test]
    fn readiness_is_a_metric() {
        let table = TestTable::new(10);
        let shown = |drain_file: Option<&str>| {
            let ready_limits = ReadyLimits { drain_file: drain_file.map(Into::into), ..ReadyLimits::default() };
            let about = About { ready_limits, ..about(1_790_000_000_000) };
            let text = body(&table, metrics(&about, &table.table()).page);
            let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            (line("urlproxy_ready{table=\"tools\"} "), line("urlproxy_draining{table=\"tools\"} "))
        };
        let (yes, no) = (|| Some("1".to_owned()), || Some("0".to_owned()));
        assert_eq!(shown(None), (no(), no()), "never loaded");
        table.mark_synced(1_790_000_000);
        assert_eq!(shown(Some("/does/not/exist")), (yes(), no()));
        assert_eq!(shown(Some("/")), (no(), yes()));
        assert_eq!(shown(Some("/dev/null/x")), (no(), None), "unknown");
    }
}
