//! Chooses the busiest tools and domains, which have statistics of their own.
//!
//! Only one companion ranks a table, on a separate thread: a round reads all counter lines, which takes milliseconds with
//! 100,000 tools.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::reader::Scratch;
use super::stats::Series;
use super::{Counters, Table};
use crate::route::Kind;

/// Time after which past requests count half in a rate.
const HALF_LIFE: Duration = Duration::from_secs(5);
/// A tool must be this much busier than one with statistics to replace it.
const HYSTERESIS: f64 = 1.5;
/// Requests per second that make a tool worth statistics of its own.
const MIN_RATE: f64 = 0.001;

/// A counter line in the last round.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    owner: u64,
    requests: u64,
    errors: u64,
    milliseconds: u64,
    rate: f64,
    error_rate: f64,
    time_rate: f64,
    /// No tool or domain has the line: it counts redirects, or its record is withdrawn.
    is_nameless: bool,
}

/// Rates of all tools and domains; private to the companion.
pub struct Ranking<'a> {
    table: Table<'a>,
    series: &'a [Series],
    /// By the number of the counter line.
    seen: Vec<Seen>,
    scratch: Scratch,
}

impl<'a> Ranking<'a> {
    /// A ranking that gives at most `limit` tools and domains statistics of their own.
    pub fn new(table: Table<'a>, limit: usize) -> Self {
        let (series, unused) = table.series.split_at_checked(limit).unwrap_or((table.series, &[]));
        let mut ranking = Self { table, series, seen: Vec::new(), scratch: Scratch::default() };
        unused.iter().for_each(|series| ranking.release(series));
        ranking.count(None);
        ranking
    }

    /// Ranks anew, `elapsed` after the last time.
    pub fn update(&mut self, elapsed: Duration) {
        self.count(Some(elapsed));
        // The line of a tool that is gone may belong to another one.
        self.used().filter(|series| self.line_of(series).is_none()).for_each(|series| self.release(series));
        let present: HashSet<u32> = self.used().map(Series::counters).collect();
        let score = |(number, seen): (u32, &Seen)| {
            let bonus = if present.contains(&number) { HYSTERESIS } else { 1.0 };
            (seen.rate >= MIN_RATE && !seen.is_nameless).then_some((seen.rate * bonus, number))
        };
        let mut busiest: Vec<(f64, u32)> = (0u32..).zip(&self.seen).filter_map(score).collect();
        busiest.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
        busiest.truncate(self.series.len());
        let busiest: Vec<u32> = busiest.into_iter().map(|(_, number)| number).collect();
        let entrants: Vec<u32> = busiest.iter().filter(|number| !present.contains(number)).copied().collect();
        if !entrants.is_empty() {
            self.admit(&entrants, &busiest.into_iter().collect());
        }
        for series in self.used() {
            if let Some(seen) = self.seen.get(series.counters() as usize) {
                series.set_rates(seen.rate, seen.error_rate, seen.time_rate);
            }
        }
    }

    /// Gives `entrants` unused series first, then those of tools that are not among the busiest, the quietest first.
    fn admit(&mut self, entrants: &[u32], busiest: &HashSet<u32>) {
        let names = self.names(entrants);
        let rate = |series: &Series| self.seen.get(series.counters() as usize).map_or(0.0, |seen| seen.rate);
        let mut places: Vec<(f64, usize, &Series)> = Vec::new();
        for (at, series) in self.series.iter().enumerate() {
            if series.owner() == 0 {
                places.push((-1.0, at, series));
            } else if !busiest.contains(&series.counters()) {
                places.push((rate(series), at, series));
            }
        }
        places.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut places = places.into_iter();
        for &number in entrants {
            let Some((kind, name)) = names.get(&number) else {
                if let Some(seen) = self.seen.get_mut(number as usize) {
                    seen.is_nameless = true;
                }
                continue;
            };
            let Some((_, at, series)) = places.next() else { break };
            let (Some(line), Ok(place)) = (self.line(number), u16::try_from(at + 1)) else { continue };
            self.release(series);
            series.assign(line.owner(), number, *kind, name);
            line.set_series(place);
        }
    }

    /// Takes a series from its tool.
    fn release(&self, series: &Series) {
        if let Some(line) = self.line_of(series) {
            line.set_series(0);
        }
        series.clear();
    }

    /// Reads all counter lines; without `elapsed` only to compare with later.
    fn count(&mut self, elapsed: Option<Duration>) {
        let keep = elapsed.map_or(0.0, |elapsed| 0.5f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64()));
        for (number, line) in self.table.counters.iter().enumerate() {
            let owner = line.owner();
            // Lines are taken in order.
            if owner == 0 {
                break;
            }
            let tally = line.tally();
            let (requests, errors) = (tally.requests(), tally.by_class.last().copied().unwrap_or(0));
            let milliseconds = tally.milliseconds;
            let new = Seen { owner, requests, errors, milliseconds, ..Seen::default() };
            let Some(seen) = self.seen.get_mut(number) else {
                self.seen.push(new);
                continue;
            };
            let Some(elapsed) = elapsed.filter(|_| seen.owner == owner && requests >= seen.requests) else {
                *seen = new;
                continue;
            };
            let rate = |now: u64, before: u64, old: f64| {
                let new = now.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(0.001);
                old * keep + new * (1.0 - keep)
            };
            *seen = Seen {
                rate: rate(requests, seen.requests, seen.rate),
                error_rate: rate(errors, seen.errors, seen.error_rate),
                time_rate: rate(milliseconds, seen.milliseconds, seen.time_rate),
                is_nameless: seen.is_nameless,
                ..new
            };
        }
    }

    /// The kinds and names of the tools and domains with these counters.
    fn names(&mut self, wanted: &[u32]) -> HashMap<u32, (Kind, Vec<u8>)> {
        let wanted: HashSet<u32> = wanted.iter().copied().collect();
        let mut names = HashMap::new();
        self.table.for_each(&mut self.scratch, |record| {
            let (kind, name) = Kind::split(record.key());
            if kind != Kind::Redirect && wanted.contains(&record.counters()) {
                names.insert(record.counters(), (kind, name.to_vec()));
            }
        });
        names
    }

    fn used(&self) -> impl Iterator<Item = &'a Series> + use<'a> {
        self.series.iter().filter(|series| series.owner() != 0)
    }

    fn line(&self, number: u32) -> Option<&'a Counters> {
        self.table.counters.get(number as usize)
    }

    /// The counter line of a series, unless it has another owner by now.
    fn line_of(&self, series: &Series) -> Option<&'a Counters> {
        self.line(series.counters()).filter(|line| series.owner() != 0 && line.owner() == series.owner())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::route::{Pattern, Route, RouteKey};
    use crate::table::{Capacity, Finished, Lookup, OwnedTable, RequestResult, StatusClass, Writer};

    const CAPACITY: Capacity = Capacity { buckets: 8, cells: 100, tools: 50, workers: 1, series: 4, ..Capacity::NONE };
    const SECOND: Duration = Duration::from_secs(1);

    fn publish(writer: &mut Writer<'_>, kind: Kind, name: &str) {
        let routes = [Route { pattern: Pattern::any(), backends: vec!["http://10.0.0.1:1".parse().unwrap()] }];
        let routes = if kind == Kind::Redirect { &[][..] } else { &routes };
        writer.publish(&RouteKey::try_new(kind, name.as_bytes()).unwrap(), routes).unwrap();
    }

    fn request(table: Table<'_>, key: &str, times: usize, class: StatusClass) {
        let key = RouteKey::from_table(key.as_bytes()).unwrap();
        let mut scratch = Scratch::default();
        let Lookup::Found(record) = table.lookup(key.as_bytes(), &mut scratch) else { panic!("{key}") };
        let line = table.counters(record.counters()).unwrap();
        let finished = Finished { result: RequestResult::Route, class, bytes: 1, milliseconds: 7 };
        (0..times).for_each(|_| table.count_request(5, &finished, Some((line, line.ticket()))));
    }

    fn named(table: Table<'_>) -> Vec<String> {
        let mut names: Vec<_> = table.series().map(|s| String::from_utf8_lossy(s.name()).into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_busiest_have_statistics_and_all_requests_are_counted_once() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let (mut writer, _) = Writer::attach(table);
        for name in ["a", "b", "c", "d"] {
            publish(&mut writer, Kind::Tool, name);
        }
        publish(&mut writer, Kind::Redirect, "a");
        publish(&mut writer, Kind::Domain, "a.org");
        let mut ranking = Ranking::new(table, 3);
        let load = || {
            request(table, "a", 10, StatusClass::Success);
            request(table, "b", 20, StatusClass::ServerError);
            request(table, "c", 1, StatusClass::Success);
            request(table, "/da.org", 30, StatusClass::Success);
            request(table, "/ra", 100, StatusClass::Redirection);
        };
        load();
        ranking.update(SECOND);
        // The redirect took one of three places, once.
        load();
        ranking.update(SECOND);
        assert_eq!(named(table), ["a", "a.org", "b"]);
        load();
        ranking.update(SECOND);
        let of = |name: &str| table.series().find(|series| series.name() == name.as_bytes()).unwrap();
        assert_eq!((of("b").kind, of("a.org").kind), (Kind::Tool, Kind::Domain));
        assert!((of("b").rate - of("b").error_rate).abs() < 0.01 && of("a").error_rate == 0.0);
        assert!((of("b").mean_milliseconds.unwrap() - 7.0).abs() < 0.1);
        assert!(of("b").rate > 5.0 && of("b").rate < 20.0, "{}", of("b").rate);
        // Each counts from its first ranking on, `a` after the redirect with the same name.
        assert_eq!(of("a").requests.by_class, [0, 10, 0, 0, 0]);
        assert_eq!(of("b").requests.by_class, [0, 0, 0, 0, 40]);
        let series: u64 = table.series().map(|series| series.requests.by_class.iter().sum::<u64>()).sum();
        let others: u64 = table.worker_tally().others.by_class.iter().sum();
        assert_eq!(series + others, 3 * (10 + 20 + 1 + 30 + 100));
        assert_eq!(table.worker_tally().others.buckets[1], others, "7 ms");
    }

    #[test]
    fn a_busier_tool_replaces_the_quietest_and_a_withdrawn_one_leaves_its_place() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let (mut writer, _) = Writer::attach(table);
        for name in ["a", "b", "c"] {
            publish(&mut writer, Kind::Tool, name);
        }
        let mut ranking = Ranking::new(table, 2);
        let round = |ranking: &mut Ranking<'_>, requests: [usize; 3]| {
            for (name, times) in ["a", "b", "c"].into_iter().zip(requests) {
                request(table, name, times, StatusClass::Success);
            }
            ranking.update(SECOND);
            named(table)
        };
        assert_eq!(round(&mut ranking, [10, 20, 0]), ["a", "b"]);
        assert_eq!(round(&mut ranking, [10, 20, 12]), ["a", "b"], "not much busier");
        for _ in 0..50 {
            assert_eq!(round(&mut ranking, [10, 20, 14]), ["a", "b"], "not half as busy again");
        }
        (0..50).for_each(|_| drop(round(&mut ranking, [10, 20, 16])));
        assert_eq!(named(table), ["b", "c"]);
        // A smaller limit after a reload.
        drop(Ranking::new(table, 1));
        assert_eq!(named(table).len(), 1);
        drop(Ranking::new(table, 0));
        assert_eq!(table.series().count(), 0);
        let others = |t: Table<'_>| t.worker_tally().others.by_class.iter().sum::<u64>();
        let before = others(table);
        request(table, "b", 1, StatusClass::Success);
        assert_eq!(others(table), before + 1);
    }

    #[test]
    fn a_quiet_tool_keeps_its_place_while_there_are_others() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let (mut writer, _) = Writer::attach(table);
        ["a", "b"].iter().for_each(|name| publish(&mut writer, Kind::Tool, name));
        let mut ranking = Ranking::new(table, 2);
        request(table, "a", 5, StatusClass::Success);
        ranking.update(SECOND);
        (0..200).for_each(|_| ranking.update(SECOND));
        request(table, "b", 5, StatusClass::Success);
        ranking.update(SECOND);
        assert_eq!(named(table), ["a", "b"]);
    }

    #[test]
    fn rates_follow_the_requests_and_halve_in_the_half_life() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let (mut writer, _) = Writer::attach(table);
        publish(&mut writer, Kind::Tool, "a");
        let mut ranking = Ranking::new(table, 1);
        let rate = || table.series().next().unwrap().rate;
        for _ in 0..100 {
            request(table, "a", 20, StatusClass::Success);
            ranking.update(2 * SECOND);
        }
        assert!((rate() - 10.0).abs() < 0.01, "{}", rate());
        ranking.update(HALF_LIFE);
        assert!((rate() - 5.0).abs() < 0.01, "{}", rate());
    }

    #[test]
    fn a_reassigned_counter_line_frees_its_series() {
        let owned = OwnedTable::new(Capacity { tools: 1, ..CAPACITY });
        let table = owned.table();
        let (mut writer, _) = Writer::attach(table);
        publish(&mut writer, Kind::Tool, "a");
        let mut ranking = Ranking::new(table, 4);
        request(table, "a", 5, StatusClass::Success);
        ranking.update(SECOND);
        assert_eq!(named(table), ["a"]);
        writer.withdraw(b"a");
        publish(&mut writer, Kind::Tool, "b");
        request(table, "b", 5, StatusClass::Success);
        assert_eq!(table.series().next().unwrap().requests.by_class, [0; 5], "not counted for the tool before");
        ranking.update(SECOND);
        assert_eq!(named(table), Vec::<String>::new());
        request(table, "b", 5, StatusClass::Success);
        ranking.update(SECOND);
        assert_eq!(named(table), ["b"]);
    }
}
