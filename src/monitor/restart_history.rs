//! The restart history: what the monitor keeps from round to round, and across its own restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;

/// The restart history. Times are Unix seconds. The field names of files and Redis are older than these and stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartHistory {
    /// The restarts of each tool within the window.
    pub starts: BTreeMap<String, Vec<u64>>,
    pub rounds: RoundState,
}

/// Everything but the restarts that count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundState {
    /// Wanted tools on the proxy's list.
    #[serde(default)]
    pub listed: Baseline,
    /// Wanted tools with a job.
    #[serde(default)]
    pub jobs: Baseline,
    /// Wanted tools.
    #[serde(default)]
    pub wanted: Baseline,
    /// Rounds are suspended until then, because the history was lost.
    #[serde(rename = "held_until", default, skip_serializing_if = "Option::is_none")]
    pub suspended_until: Option<u64>,
    /// The accept file's time when the suspension began; another time lets a round through.
    #[serde(rename = "braked_at_touch", default, skip_serializing_if = "Option::is_none")]
    pub suspended_at_touch: Option<Touch>,
    /// The last notice in each tool's service.log, so that no round repeats it.
    #[serde(rename = "told", default)]
    pub notices: BTreeMap<String, LastNotice>,
    /// Since when each tool waits for a restart: since it was first seen down, in a round that was not suspended, or since the
    /// last attempt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<String, u64>,
    /// Each tool's attempts, within the window, that never began, since the last one that did.
    #[serde(rename = "unbegun", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_begun: BTreeMap<String, Vec<u64>>,
    /// Since when each tool's job is seen being deleted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deleting: BTreeMap<String, u64>,
}

/// A file's modification time, in nanoseconds since 1970; 0 without a file.
pub type Touch = u64;

/// The last notice in a tool's service.log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastNotice {
    /// `throttled`, or the reason why the tool is skipped.
    #[serde(rename = "what")]
    pub kind: String,
    /// Unix seconds.
    pub at: u64,
}

impl RestartHistory {
    /// The history after the real one was lost: no restarts for one window.
    pub fn lost(now: u64, window: Duration) -> Self {
        let rounds = RoundState { suspended_until: Some(now + window.as_secs()), ..RoundState::default() };
        Self { rounds, ..Self::default() }
    }

    /// Removes what is older than the window. A time in the future comes from a clock that was set back since: it becomes now,
    /// and so counts for one more window.
    pub fn prune(&mut self, now: u64, window: Duration) {
        let window = window.as_secs().max(1);
        for times in [&mut self.starts, &mut self.rounds.not_begun] {
            times.retain(|_, times| {
                times.iter_mut().for_each(|time| *time = (*time).min(now));
                times.retain(|time| now - *time < window);
                !times.is_empty()
            });
        }
        self.rounds.notices.retain(|_, notice| {
            notice.at = notice.at.min(now);
            now - notice.at < window
        });
        self.rounds.waiting.values_mut().for_each(|since| *since = (*since).min(now));
        self.rounds.deleting.values_mut().for_each(|since| *since = (*since).min(now));
        self.rounds.suspended_until =
            self.rounds.suspended_until.map(|until| until.min(now + window)).filter(|until| *until > now);
    }

    /// The number of a tool's restarts within the window, after [`Self::prune`].
    pub fn starts_of(&self, tool: &str) -> usize {
        self.starts.get(tool).map_or(0, Vec::len)
    }

    /// When a tool with `most` restarts may be restarted again.
    pub fn next_restart_at(&self, tool: &str, most: usize, window: Duration) -> u64 {
        let starts = self.starts.get(tool).map(Vec::as_slice).unwrap_or_default();
        let first = starts.len().checked_sub(most).and_then(|skip| starts.get(skip));
        first.map_or(0, |first| first + window.as_secs())
    }

    /// Counts a restart, and moves the tool to the end of the order.
    pub fn record_start(&mut self, tool: &str, now: u64) {
        self.starts.entry(tool.to_owned()).or_default().push(now);
        self.rounds.waiting.insert(tool.to_owned(), now);
    }

    /// Records whether the restart of this time reached the tool's own command; if not, it no longer counts.
    pub fn record_begun(&mut self, tool: &str, at: u64, has_begun: bool) {
        if has_begun {
            self.rounds.not_begun.remove(tool);
            return;
        }
        self.rounds.not_begun.entry(tool.to_owned()).or_default().push(at);
        let Some(starts) = self.starts.get_mut(tool) else { return };
        if let Some(index) = starts.iter().rposition(|start| *start == at) {
            starts.remove(index);
        }
        if starts.is_empty() {
            self.starts.remove(tool);
        }
    }

    /// Sets the tools that wait for a restart.
    pub fn set_waiting<'a>(&mut self, tools: impl Iterator<Item = &'a str>, now: u64) {
        let mut before = std::mem::take(&mut self.rounds.waiting);
        self.rounds.waiting = pairs(tools, |tool| before.remove(tool).unwrap_or(now));
    }

    /// Sets the tools with jobs that are being deleted.
    pub fn set_deleting<'a>(&mut self, tools: impl Iterator<Item = &'a str>, now: u64) {
        let mut before = std::mem::take(&mut self.rounds.deleting);
        self.rounds.deleting = pairs(tools, |tool| before.remove(tool).unwrap_or(now));
    }

    /// Time since a tool's job was first seen being deleted.
    pub fn deleting_for(&self, tool: &str, now: u64) -> Duration {
        let since = self.rounds.deleting.get(tool).copied().unwrap_or(now);
        Duration::from_secs(now.saturating_sub(since))
    }

    /// The sort key for restarts: longest waiting first, then fewest attempts.
    pub fn priority_of(&self, tool: &str) -> (u64, usize) {
        let since = self.rounds.waiting.get(tool).copied().unwrap_or(u64::MAX);
        (since, self.starts_of(tool) + self.rounds.not_begun.get(tool).map_or(0, Vec::len))
    }

    /// Whether a tool with starts that never begin must wait: after the first one the next round tries again, then every second
    /// round, every fourth ..., at least once in a window. The tool being up meanwhile changes nothing: it may have been
    /// restarted by other means.
    pub fn is_backing_off(&self, tool: &str, now: u64, interval: Duration, window: Duration) -> bool {
        let Some([before @ .., last]) = self.rounds.not_begun.get(tool).map(Vec::as_slice) else { return false };
        let rounds = 2_u32.saturating_pow(u32::try_from(before.len()).unwrap_or(u32::MAX)) - 1;
        let delay = interval.saturating_mul(rounds).min(window);
        Duration::from_secs(now.saturating_sub(*last)) < delay
    }

    /// Adds the restarts of another history, and its `rounds` if this one has none.
    pub fn merge(&mut self, other: Self) {
        if self.rounds == RoundState::default() {
            self.rounds = other.rounds;
        }
        for (tool, starts) in other.starts {
            let known = self.starts.entry(tool).or_default();
            // Several restarts may have the same second.
            let mut both = known.clone();
            for start in starts {
                match both.iter().position(|known| *known == start) {
                    Some(index) => drop(both.swap_remove(index)),
                    None => known.push(start),
                }
            }
            known.sort_unstable();
        }
    }

    /// Records a notice. Returns whether it is new, and so belongs in the tool's service.log.
    pub fn record_notice(&mut self, tool: &str, kind: &str, now: u64) -> bool {
        let notice = LastNotice { kind: kind.to_owned(), at: now };
        match self.rounds.notices.get(tool) {
            Some(known) if known.kind == kind => false,
            _ => {
                self.rounds.notices.insert(tool.to_owned(), notice);
                true
            }
        }
    }
}

fn pairs<'a, T>(names: impl Iterator<Item = &'a str>, mut value: impl FnMut(&str) -> T) -> BTreeMap<String, T> {
    names.map(|name| (name.to_owned(), value(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(3600);

    fn restarted_at(times: &[u64]) -> RestartHistory {
        let mut history = RestartHistory::default();
        times.iter().for_each(|&time| history.record_start("hello", time));
        history
    }

    /// Earlier versions wrote these names, to files and to Redis.
    #[test]
    fn stored_field_names_do_not_change() {
        let stored = r#"{"starts":{"hello":[1]},"rounds":{"listed":{"believed":40,"rounds":2,"doubted":{"count":9,"rounds":1}},"jobs":{"believed":null,"rounds":0},"wanted":{"believed":null,"rounds":0},"held_until":7,"braked_at_touch":8,"told":{"hello":{"what":"throttled","at":3}},"waiting":{"hello":4},"unbegun":{"hello":[5]},"deleting":{"hello":6}}}"#;
        let history: RestartHistory = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&history).unwrap(), stored);
    }

    #[test]
    fn restarts_count_for_a_window() {
        for (now, left) in [(10_000, 3), (13_599, 3), (13_600, 2), (13_700, 1), (20_000, 0)] {
            let mut history = restarted_at(&[10_000, 10_100, 10_200]);
            history.prune(now, WINDOW);
            assert_eq!(history.starts_of("hello"), left, "{now}");
        }
        let history = restarted_at(&[10_000, 10_100, 10_200]);
        assert_eq!(history.next_restart_at("hello", 3, WINDOW), 13_600);
        assert_eq!(history.next_restart_at("hello", 2, WINDOW), 13_700);
        assert_eq!(history.next_restart_at("other", 3, WINDOW), 0);
    }

    #[test]
    fn clock_set_back_extends_limits_by_one_window() {
        let mut history = restarted_at(&[10_000, 10_000, 10_000]);
        history.rounds.suspended_until = Some(13_600);
        history.prune(500, WINDOW);
        assert_eq!(history.starts_of("hello"), 3);
        assert_eq!(history.rounds.suspended_until, Some(4100));
        history.prune(4099, WINDOW);
        assert_eq!(history.starts_of("hello"), 3);
        history.prune(4100, WINDOW);
        assert_eq!(history.starts_of("hello"), 0);
        assert_eq!(history.rounds.suspended_until, None);
    }

    #[test]
    fn start_that_never_began_does_not_count_but_moves_to_the_end() {
        let mut history = RestartHistory::default();
        history.set_waiting(["hello", "other"].into_iter(), 100);
        history.record_start("hello", 160);
        assert_eq!((history.starts_of("hello"), history.priority_of("hello")), (1, (160, 1)), "until it is known");
        history.record_begun("hello", 160, false);
        assert_eq!((history.starts_of("hello"), history.priority_of("hello")), (0, (160, 1)));
        assert!(history.priority_of("other") < history.priority_of("hello"));
        history.record_start("hello", 160);
        history.record_begun("hello", 160, true);
        assert_eq!(
            (history.starts_of("hello"), history.priority_of("hello")),
            (1, (160, 1)),
            "begun starts clear those that never began"
        );
        history.set_waiting(["other"].into_iter(), 200);
        history.set_waiting(["other", "hello"].into_iter(), 220);
        assert_eq!(
            (history.priority_of("other").0, history.priority_of("hello").0),
            (100, 220),
            "it was up in between"
        );
    }

    #[test]
    fn starts_that_never_begin_back_off() {
        let mut history = RestartHistory::default();
        let minute = Duration::from_secs(60);
        for (not_begun, delay) in [(1, 0), (2, 60), (3, 180), (4, 420), (7, 3600), (1000, 3600)] {
            history.rounds.not_begun.insert("hello".into(), vec![10_000; not_begun]);
            // The tool was up in between.
            history.set_waiting([].into_iter(), 10_000);
            let backs_off = |at: u64| history.is_backing_off("hello", at, minute, WINDOW);
            assert!(!backs_off(10_000 + delay), "{not_begun}");
            assert!(delay == 0 || backs_off(10_000 + delay - 1), "{not_begun}");
        }
        assert!(!history.is_backing_off("other", 10_000, minute, WINDOW));
        history.record_start("hello", 10_000);
        history.record_begun("hello", 10_000, true);
        assert!(!history.is_backing_off("hello", 10_000, minute, WINDOW), "it has begun again");
    }

    #[test]
    fn deletion_time_counts_from_the_first_sight() {
        let mut history = RestartHistory::default();
        history.set_deleting(["hello"].into_iter(), 100);
        history.set_deleting(["hello", "other"].into_iter(), 160);
        assert_eq!(history.deleting_for("hello", 170), Duration::from_secs(70));
        assert_eq!(history.deleting_for("other", 170), Duration::from_secs(10));
        assert_eq!(history.deleting_for("none", 170), Duration::ZERO);
        history.set_deleting([].into_iter(), 180);
        assert_eq!(history.deleting_for("hello", 190), Duration::ZERO);
    }

    #[test]
    fn merge_keeps_the_restarts_of_both() {
        let mut one = restarted_at(&[10, 30]);
        let mut other = restarted_at(&[10, 20, 20]);
        other.record_start("other", 5);
        one.merge(other);
        assert_eq!(one.starts["hello"], [10, 20, 20, 30]);
        assert_eq!(one.starts["other"], [5]);
        let mut empty = RestartHistory::default();
        empty.merge(one.clone());
        assert_eq!(empty, one);
    }

    #[test]
    fn notices_are_new_once_in_a_window() {
        let mut history = RestartHistory::default();
        assert!(history.record_notice("hello", "throttled", 100));
        assert!(!history.record_notice("hello", "throttled", 200));
        assert!(history.record_notice("hello", "malformed", 300));
        assert!(history.record_notice("hello", "throttled", 400));
        history.prune(400 + 3600, WINDOW);
        assert!(history.record_notice("hello", "throttled", 4000));
    }
}
