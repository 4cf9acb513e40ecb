//! `/api/tools`: the first tools and domains by one figure, with the figures of each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::ControlFlow;

use serde::Serialize;

use super::about::About;
use super::answer::{Answer, ApiError};
use super::backend_state::Health;
use super::json;
use super::page::{Page, Scan, Step, unless_full};
use super::query::Query;
use super::tool::backends;
use crate::route::Kind;
use crate::table::{Lookup, Scratch, SeriesView, Table, Tally};

/// The parameters.
pub const PARAMETERS: &[&str] = &["search", "sort", "limit", "kind"];
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 1000;
/// Items that one step writes.
const ITEMS_PER_STEP: usize = 50;

/// The figure that decides which tools come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Rate,
    Requests,
    Errors,
    Latency,
    Name,
}

const SORTS: [(&str, Sort); 5] = [
    ("rate", Sort::Rate),
    ("requests", Sort::Requests),
    ("errors", Sort::Errors),
    ("latency", Sort::Latency),
    ("name", Sort::Name),
];

/// The order of the answer: larger figures first, then names.
type Rank = (Reverse<u64>, Reverse<u64>, Vec<u8>);

#[derive(Serialize)]
struct Item {
    kind: Kind,
    name: String,
    /// Number of backends of all routes.
    backends: usize,
    /// Those of them that get no requests for now.
    unavailable: usize,
    /// The first backend of the last route.
    backend: Option<String>,
    requests: [u64; 5],
    bytes: u64,
    milliseconds: u64,
    rate: Option<f64>,
    error_rate: Option<f64>,
    /// Of late.
    mean_milliseconds: Option<f64>,
    rejected: usize,
}

/// The answer for a table.
///
/// # Errors
/// An invalid parameter.
pub fn tools(about: About, table: &Table<'_>, query: &Query) -> Result<Answer, ApiError> {
    let kinds = [Kind::Tool, Kind::Domain].map(|kind| (kind.as_str(), kind));
    let mut rejected: HashMap<(Kind, Vec<u8>), usize> = HashMap::new();
    for note in table.notes().rejected() {
        *rejected.entry((note.kind, note.name)).or_default() += 1;
    }
    Ok(Answer::json(ToolsPage {
        about,
        search: query.get("search").unwrap_or_default().to_ascii_lowercase(),
        sort: query.choice("sort", &SORTS)?.unwrap_or(Sort::Rate),
        limit: query.positive("limit", MAX_LIMIT)?.unwrap_or(LIMIT),
        kind: query.choice("kind", &kinds)?,
        series: table.series().map(|series| (series.counters, series)).collect(),
        rejected,
        scan: Some(Scan::default()),
        matching: 0,
        best: BinaryHeap::new(),
        sorted: Vec::new().into_iter(),
        has_items: false,
    }))
}

struct ToolsPage {
    about: About,
    search: Vec<u8>,
    sort: Sort,
    limit: usize,
    kind: Option<Kind>,
    /// By the number of the counters.
    series: HashMap<u32, SeriesView>,
    rejected: HashMap<(Kind, Vec<u8>), usize>,
    /// While the table is searched.
    scan: Option<Scan>,
    matching: usize,
    /// The best so far, the worst of them on top.
    best: BinaryHeap<Rank>,
    /// The best in order, once the search is over.
    sorted: std::vec::IntoIter<Rank>,
    has_items: bool,
}

impl ToolsPage {
    /// Searches a part of the table.
    fn search(&mut self, table: &Table<'_>, scratch: &mut Scratch, mut scan: Scan) -> Option<Scan> {
        let step = scan.step(table, scratch, |record| {
            let (kind, name) = Kind::split(record.key());
            let is_wanted = kind != Kind::Redirect && self.kind.is_none_or(|wanted| wanted == kind);
            if !is_wanted || !contains_ignoring_case(name, &self.search) {
                return ControlFlow::Continue(());
            }
            self.matching += 1;
            let tally = table.counters(record.counters()).map_or_else(Tally::default, |line| line.tally());
            let requests = tally.requests();
            let errors = tally.by_class.last().copied().unwrap_or(0);
            let figure = match self.sort {
                Sort::Rate => self
                    .series
                    .get(&record.counters())
                    .map_or(0, |series| ((series.rate * 1000.0) as u64).saturating_add(1)),
                Sort::Requests => requests,
                Sort::Errors => errors,
                Sort::Latency => {
                    let mean = self.series.get(&record.counters()).and_then(|series| series.mean_milliseconds);
                    mean.map_or(0, |mean| ((mean * 1000.0) as u64).saturating_add(1))
                }
                Sort::Name => 0,
            };
            let second = if self.sort == Sort::Name { 0 } else { requests };
            let is_better = |worst: &Rank| {
                (&worst.0, &worst.1, worst.2.as_slice()) > (&Reverse(figure), &Reverse(second), record.key())
            };
            if self.best.len() < self.limit || self.best.peek().is_some_and(is_better) {
                self.best.push((Reverse(figure), Reverse(second), record.key().to_vec()));
            }
            if self.best.len() > self.limit {
                self.best.pop();
            }
            ControlFlow::Continue(())
        });
        (step == Step::More).then_some(scan)
    }

    fn item(&self, table: &Table<'_>, scratch: &mut Scratch, key: &[u8]) -> Option<Item> {
        let Lookup::Found(record) = table.lookup(key, scratch) else { return None };
        let (kind, name) = Kind::split(key);
        let tally = table.counters(record.counters()).map_or_else(Tally::default, |line| line.tally());
        let series = self.series.get(&record.counters());
        let (mut count, mut unavailable, mut backend) = (0, 0, None);
        for route in record.routes() {
            let states = backends(&self.about, table, &record, &route);
            count += states.len();
            unavailable += states.iter().filter(|state| state.health == Health::Unavailable).count();
            backend = states.into_iter().next().map(|state| state.url);
        }
        Some(Item {
            kind,
            name: String::from_utf8_lossy(name).into_owned(),
            backends: count,
            unavailable,
            backend,
            requests: tally.by_class,
            bytes: tally.bytes,
            milliseconds: tally.milliseconds,
            rate: series.map(|series| series.rate),
            error_rate: series.map(|series| series.error_rate),
            mean_milliseconds: series.and_then(|series| series.mean_milliseconds),
            rejected: self.rejected.get(&(kind, name.to_vec())).copied().unwrap_or(0),
        })
    }
}

impl Page for ToolsPage {
    fn step(&mut self, table: &Table<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Step {
        if let Some(scan) = self.scan.take() {
            self.scan = self.search(table, scratch, scan);
            if self.scan.is_none() {
                self.sorted = std::mem::take(&mut self.best).into_sorted_vec().into_iter();
                out.extend_from_slice(b"{\"table\":");
                json::string(out, self.about.table.as_bytes());
                let (now, matching) = (self.about.now_seconds(), self.matching);
                out.extend_from_slice(format!(",\"now\":{now},\"matching\":{matching},\"items\":[").as_bytes());
            }
            return Step::More;
        }
        for _ in 0..ITEMS_PER_STEP {
            let Some((_, _, key)) = self.sorted.next() else {
                out.extend_from_slice(b"]}");
                return Step::Done;
            };
            if let Some(item) = self.item(table, scratch, &key) {
                if std::mem::replace(&mut self.has_items, true) {
                    out.push(b',');
                }
                json::value(out, &item);
            }
            if unless_full(out).is_break() {
                break;
            }
        }
        Step::More
    }
}

/// Whether `text` contains `lower`, which is in lower case; ASCII letters of either case match.
fn contains_ignoring_case(text: &[u8], lower: &[u8]) -> bool {
    lower.is_empty() || text.windows(lower.len()).any(|window| window.eq_ignore_ascii_case(lower))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::admin::testing::{TestTable, about, body};
    use crate::table::{Finished, Ranking, RequestResult, StatusClass};

    fn asked(table: &TestTable, args: &str) -> Result<Value, String> {
        let query = Query::parse(args.as_bytes(), PARAMETERS).map_err(|error| error.to_string())?;
        let answer = tools(about(1_790_000_000_000), &table.table(), &query).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&body(table, answer.page)).unwrap())
    }

    fn names(table: &TestTable, args: &str) -> Vec<String> {
        let shown = asked(table, args).unwrap();
        shown["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    fn request(table: &TestTable, name: &str, times: usize, class: StatusClass, milliseconds: u64) {
        let t = table.table();
        let mut scratch = Scratch::default();
        let Lookup::Found(record) = t.lookup(name.as_bytes(), &mut scratch) else { panic!("{name}") };
        let line = t.counters(record.counters()).unwrap();
        let finished = Finished { result: RequestResult::Route, class, bytes: 10, milliseconds };
        (0..times).for_each(|_| t.count_request(0, &finished, Some((line, line.ticket()))));
    }

    fn filled() -> TestTable {
        let table = TestTable::new(10);
        for name in ["alpha", "beta", "gamma", "Delta-alpha"] {
            table.publish(
                Kind::Tool,
                name,
                &[("/x", &["http://10.0.0.9:1"]), (".*", &["http://10.0.0.1:1", "http://10.0.0.2:1"])],
            );
        }
        table.publish(Kind::Redirect, "alpha", &[]);
        table.publish(Kind::Domain, "www.alpha.org", &[(".*", &["http://10.0.0.1:1"])]);
        request(&table, "alpha", 5, StatusClass::Success, 10);
        request(&table, "beta", 3, StatusClass::ServerError, 100);
        request(&table, "gamma", 1, StatusClass::Success, 1000);
        table
    }

    #[test]
    fn the_sort_decides_which_come_first() {
        let table = filled();
        assert_eq!(names(&table, "sort=requests&limit=3"), ["alpha", "beta", "gamma"]);
        assert_eq!(names(&table, "sort=errors&limit=2"), ["beta", "alpha"]);
        assert_eq!(names(&table, "sort=name"), ["www.alpha.org", "Delta-alpha", "alpha", "beta", "gamma"]);
        let mut ranking = Ranking::new(table.table(), 4);
        request(&table, "gamma", 50, StatusClass::Success, 1);
        ranking.update(Duration::from_secs(1));
        assert_eq!(names(&table, "limit=2"), ["gamma", "alpha"], "the rate, then the requests");
        request(&table, "beta", 1, StatusClass::Success, 900);
        ranking.update(Duration::from_secs(1));
        assert_eq!(names(&table, "sort=latency&limit=3"), ["beta", "gamma", "alpha"], "of late");
        let shown = asked(&table, "limit=1").unwrap();
        assert!(shown["items"][0]["rate"].as_f64().unwrap() > 1.0, "{shown}");
    }

    #[test]
    fn search_ignores_case_and_counts_all_matches() {
        let table = filled();
        let shown = asked(&table, "search=ALPHA&limit=1&sort=requests").unwrap();
        assert_eq!((shown["matching"].as_u64(), &shown["items"][0]["name"]), (Some(3), &json!("alpha")));
        assert_eq!(names(&table, "search=alpha&kind=domain"), ["www.alpha.org"]);
        assert_eq!(names(&table, "search=nothing"), Vec::<String>::new());
        let want = json!({
            "kind": "tool", "name": "alpha", "backends": 3, "unavailable": 0, "backend": "http://10.0.0.1:1",
            "requests": [0, 5, 0, 0, 0], "bytes": 50, "milliseconds": 50, "rate": null, "error_rate": null, "mean_milliseconds": null, "rejected": 0,
        });
        assert_eq!(shown["items"][0], want);
    }

    #[test]
    fn many_tools_give_the_best_in_bounded_steps() {
        let table = TestTable::new(5000);
        (0..5000).for_each(|n| table.publish(Kind::Tool, &format!("tool-{n:04}"), &[(".*", &["http://10.0.0.1:1"])]));
        request(&table, "tool-1234", 2, StatusClass::Success, 1);
        assert_eq!(names(&table, "sort=requests&limit=3"), ["tool-1234", "tool-0000", "tool-0001"]);
        assert_eq!(names(&table, "sort=name&limit=1000").len(), 1000);
        assert!(asked(&table, "limit=1001").unwrap_err().contains("expected 1 to 1000"));
    }
}
