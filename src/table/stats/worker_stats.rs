//! What one worker has done: requests by result, and its kept connections.

use serde::Serialize;

use super::histogram::{DurationHistogram, DurationWords, add};
use crate::table::StatusClass;
use crate::table::atomic::{AtomicU64, Ordering::Relaxed};

/// How a request was routed; the values of `$urlproxy_result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestResult {
    /// By a route of its tool or domain.
    Route = 0,
    /// By `urlproxy_default`.
    Default = 1,
    /// Answered with a redirect: to the own host of a tool, or from a moved domain.
    Redirect = 2,
    /// Nothing matched.
    Miss = 3,
    /// The routes were not loaded.
    Unready = 4,
}

impl RequestResult {
    /// All results, by their number.
    pub const ALL: [Self; 5] = [Self::Route, Self::Default, Self::Redirect, Self::Miss, Self::Unready];

    /// The value of `$urlproxy_result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Default => "default",
            Self::Redirect => "redirect",
            Self::Miss => "miss",
            Self::Unready => "unready",
        }
    }
}

/// Six lines per worker. Workers with the same number modulo the table's number of entries share one.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct WorkerStats {
    by_result: [[AtomicU64; 5]; RequestResult::ALL.len()],
    /// Requests of tools and domains without a [`Series`](super::Series).
    others: DurationWords,
    idle: AtomicU64,
    reused: AtomicU64,
    opened: AtomicU64,
    evicted: AtomicU64,
}

/// The sum over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerTally {
    /// Requests by [`RequestResult`], then by status class.
    pub by_result: [[u64; 5]; RequestResult::ALL.len()],
    /// Requests of tools and domains without a [`Series`](super::Series).
    pub others: DurationHistogram,
    /// Idle connections to backends that are kept.
    pub idle: u64,
    /// Requests that reused a kept connection.
    pub reused: u64,
    /// Requests that found no kept connection.
    pub opened: u64,
    /// Kept connections that were closed to make room for others.
    pub evicted: u64,
}

impl WorkerStats {
    pub(in crate::table) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            by_result: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            others: DurationWords::new(),
            idle: zero(),
            reused: zero(),
            opened: zero(),
            evicted: zero(),
        }
    }

    /// Counts a finished request.
    #[inline]
    pub fn add(&self, result: RequestResult, class: StatusClass) {
        if let Some(count) = self.by_result.get(result as usize).and_then(|classes| classes.get(class as usize)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a finished request of a tool or domain without a [`Series`](super::Series).
    #[inline]
    pub fn add_other(&self, class: StatusClass, milliseconds: u64) {
        self.others.add(class, milliseconds);
    }

    /// Records the number of idle connections of this worker.
    pub fn set_idle(&self, connections: u64) {
        self.idle.store(connections, Relaxed);
    }

    /// Adds to the totals of reused, opened and evicted connections.
    pub fn add_connections(&self, reused: u64, opened: u64, evicted: u64) {
        for (word, count) in [(&self.reused, reused), (&self.opened, opened), (&self.evicted, evicted)] {
            if count > 0 {
                word.fetch_add(count, Relaxed);
            }
        }
    }

    pub(in crate::table) fn add_to(&self, tally: &mut WorkerTally) {
        for (sums, classes) in tally.by_result.iter_mut().zip(&self.by_result) {
            sums.iter_mut().zip(classes).for_each(|(sum, count)| add(sum, count.load(Relaxed)));
        }
        tally.others.merge(&self.others.read());
        add(&mut tally.idle, self.idle.load(Relaxed));
        add(&mut tally.reused, self.reused.load(Relaxed));
        add(&mut tally.opened, self.opened.load(Relaxed));
        add(&mut tally.evicted, self.evicted.load(Relaxed));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_same_name_everywhere() {
        let names = RequestResult::ALL.map(RequestResult::as_str);
        assert_eq!(names, ["route", "default", "redirect", "miss", "unready"]);
        assert_eq!(serde_json::to_value(RequestResult::ALL).unwrap(), serde_json::json!(names));
    }
}
