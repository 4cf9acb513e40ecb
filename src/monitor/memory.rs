//! What the monitor remembers from round to round, and over its own restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::watermark::Watermark;

/// All of it. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When each tool was restarted, within the window.
    pub starts: BTreeMap<String, Vec<u64>>,
    /// The rest.
    pub rounds: Rounds,
}

/// What is not of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounds {
    /// Wanted tools on the proxy's list.
    #[serde(default)]
    pub listed: Watermark,
    /// Wanted tools that have a job.
    #[serde(default)]
    pub jobs: Watermark,
    /// Wanted tools.
    #[serde(default)]
    pub wanted: Watermark,
    /// Nothing is restarted before: the history was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<u64>,
    /// When the operator's file had been touched when a brake began; another time lets a round through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub braked_at_touch: Option<Touch>,
    /// What each tool's service.log was told last, so that it is not told again in each round.
    #[serde(default)]
    pub told: BTreeMap<String, Told>,
    /// Since when each tool that should be restarted waits for its turn: since that was seen first, in a round that was not
    /// braked, or since it was tried last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<String, u64>,
    /// When each tool's restart never began, within the window, and since the last that did.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unbegun: BTreeMap<String, Vec<u64>>,
    /// Since when each tool's job has been seen to be deleted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deleting: BTreeMap<String, u64>,
}

/// A file's time, in nanoseconds since 1970; 0 is no file.
pub type Touch = u64;

/// What a service.log was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Of which kind.
    pub what: String,
    /// When.
    pub at: u64,
}

impl Memory {
    /// The memory of one that has lost it: as if all tools had just been restarted as often as they may.
    pub fn lost(now: u64, window: Duration) -> Self {
        let rounds = Rounds { held_until: Some(now + window.as_secs()), ..Rounds::default() };
        Self { rounds, ..Self::default() }
    }

    /// Forgets what is older than the window. What lies in the future is from a clock that has been set back since:
    /// it happened now at the latest, and counts for a whole window more.
    pub fn settle(&mut self, now: u64, window: Duration) {
        let window = window.as_secs().max(1);
        for times in [&mut self.starts, &mut self.rounds.unbegun] {
            times.retain(|_, times| {
                times.iter_mut().for_each(|time| *time = (*time).min(now));
                times.retain(|time| now - *time < window);
                !times.is_empty()
            });
        }
        self.rounds.told.retain(|_, told| {
            told.at = told.at.min(now);
            now - told.at < window
        });
        self.rounds.waiting.values_mut().for_each(|since| *since = (*since).min(now));
        self.rounds.deleting.values_mut().for_each(|since| *since = (*since).min(now));
        self.rounds.held_until =
            self.rounds.held_until.map(|until| until.min(now + window)).filter(|until| *until > now);
    }

    /// How often a tool was restarted within the window, once that is settled.
    pub fn starts_of(&self, tool: &str) -> usize {
        self.starts.get(tool).map_or(0, Vec::len)
    }

    /// When a tool that was restarted `most` times may be again.
    pub fn free_at(&self, tool: &str, most: usize, window: Duration) -> u64 {
        let starts = self.starts.get(tool).map(Vec::as_slice).unwrap_or_default();
        let first = starts.len().checked_sub(most).and_then(|skip| starts.get(skip));
        first.map_or(0, |first| first + window.as_secs())
    }

    /// A tool is being restarted, which counts from now on, and has had its turn.
    pub fn note_start(&mut self, tool: &str, now: u64) {
        self.starts.entry(tool.to_owned()).or_default().push(now);
        self.rounds.waiting.insert(tool.to_owned(), now);
    }

    /// The restart of then has come as far as the tool's own command, or has not: then it does not count.
    pub fn note_begun(&mut self, tool: &str, at: u64, has_begun: bool) {
        if has_begun {
            self.rounds.unbegun.remove(tool);
            return;
        }
        self.rounds.unbegun.entry(tool.to_owned()).or_default().push(at);
        let Some(starts) = self.starts.get_mut(tool) else { return };
        if let Some(index) = starts.iter().rposition(|start| *start == at) {
            starts.remove(index);
        }
        if starts.is_empty() {
            self.starts.remove(tool);
        }
    }

    /// These tools should be restarted, and no others.
    pub fn note_waiting<'a>(&mut self, tools: impl Iterator<Item = &'a str>, now: u64) {
        let mut before = std::mem::take(&mut self.rounds.waiting);
        self.rounds.waiting = pairs(tools, |tool| before.remove(tool).unwrap_or(now));
    }

    /// The jobs of these tools are being deleted, and of no others.
    pub fn note_deleting<'a>(&mut self, tools: impl Iterator<Item = &'a str>, now: u64) {
        let mut before = std::mem::take(&mut self.rounds.deleting);
        self.rounds.deleting = pairs(tools, |tool| before.remove(tool).unwrap_or(now));
    }

    /// For how long a tool's job has been seen to be deleted.
    pub fn deleting_for(&self, tool: &str, now: u64) -> Duration {
        let since = self.rounds.deleting.get(tool).copied().unwrap_or(now);
        Duration::from_secs(now.saturating_sub(since))
    }

    /// Whose turn it is comes first: who has waited longest, of these who has been tried least.
    pub fn turn_of(&self, tool: &str) -> (u64, usize) {
        let since = self.rounds.waiting.get(tool).copied().unwrap_or(u64::MAX);
        (since, self.starts_of(tool) + self.rounds.unbegun.get(tool).map_or(0, Vec::len))
    }

    /// Whether it is too early to try a tool again whose starts never begin: the next round may after the first of them, then
    /// every second, fourth ..., until it is a window. That the tool is up meanwhile changes nothing: it may have been restarted
    /// in a way that hides it.
    pub fn is_backing_off(&self, tool: &str, now: u64, interval: Duration, window: Duration) -> bool {
        let Some([before @ .., last]) = self.rounds.unbegun.get(tool).map(Vec::as_slice) else { return false };
        let rounds = 2_u32.saturating_pow(u32::try_from(before.len()).unwrap_or(u32::MAX)) - 1;
        let rest = interval.saturating_mul(rounds).min(window);
        Duration::from_secs(now.saturating_sub(*last)) < rest
    }

    /// Adds the restarts that another memory knows of, and what it has of `rounds` if this one has nothing at all.
    pub fn merge(&mut self, other: Self) {
        if self.rounds == Rounds::default() {
            self.rounds = other.rounds;
        }
        for (tool, starts) in other.starts {
            let known = self.starts.entry(tool).or_default();
            // There may be several within a second.
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

    /// Whether its service.log is to be told this; it is from then on.
    pub fn is_news(&mut self, tool: &str, what: &str, now: u64) -> bool {
        let told = Told { what: what.to_owned(), at: now };
        match self.rounds.told.get(tool) {
            Some(known) if known.what == what => false,
            _ => {
                self.rounds.told.insert(tool.to_owned(), told);
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

    fn restarted_at(times: &[u64]) -> Memory {
        let mut memory = Memory::default();
        times.iter().for_each(|&time| memory.note_start("hello", time));
        memory
    }

    #[test]
    fn restarts_count_for_a_window() {
        for (now, left) in [(10_000, 3), (13_599, 3), (13_600, 2), (13_700, 1), (20_000, 0)] {
            let mut memory = restarted_at(&[10_000, 10_100, 10_200]);
            memory.settle(now, WINDOW);
            assert_eq!(memory.starts_of("hello"), left, "{now}");
        }
        let memory = restarted_at(&[10_000, 10_100, 10_200]);
        assert_eq!(memory.free_at("hello", 3, WINDOW), 13_600);
        assert_eq!(memory.free_at("hello", 2, WINDOW), 13_700);
        assert_eq!(memory.free_at("other", 3, WINDOW), 0);
    }

    #[test]
    fn a_clock_set_back_frees_nobody_and_holds_nobody_for_ever() {
        let mut memory = restarted_at(&[10_000, 10_000, 10_000]);
        memory.rounds.held_until = Some(13_600);
        memory.settle(500, WINDOW);
        assert_eq!(memory.starts_of("hello"), 3);
        assert_eq!(memory.rounds.held_until, Some(4100));
        memory.settle(4099, WINDOW);
        assert_eq!(memory.starts_of("hello"), 3);
        memory.settle(4100, WINDOW);
        assert_eq!(memory.starts_of("hello"), 0);
        assert_eq!(memory.rounds.held_until, None);
    }

    #[test]
    fn a_start_that_never_began_does_not_count_but_has_had_its_turn() {
        let mut memory = Memory::default();
        memory.note_waiting(["hello", "other"].into_iter(), 100);
        memory.note_start("hello", 160);
        assert_eq!((memory.starts_of("hello"), memory.turn_of("hello")), (1, (160, 1)), "until it is known");
        memory.note_begun("hello", 160, false);
        assert_eq!((memory.starts_of("hello"), memory.turn_of("hello")), (0, (160, 1)));
        assert!(memory.turn_of("other") < memory.turn_of("hello"));
        memory.note_start("hello", 160);
        memory.note_begun("hello", 160, true);
        assert_eq!((memory.starts_of("hello"), memory.turn_of("hello")), (1, (160, 1)), "none that never began");
        memory.note_waiting(["other"].into_iter(), 200);
        memory.note_waiting(["other", "hello"].into_iter(), 220);
        assert_eq!((memory.turn_of("other").0, memory.turn_of("hello").0), (100, 220), "it was up in between");
    }

    #[test]
    fn who_never_begins_is_tried_less_and_less_often() {
        let mut memory = Memory::default();
        let minute = Duration::from_secs(60);
        for (unbegun, rest) in [(1, 0), (2, 60), (3, 180), (4, 420), (7, 3600), (1000, 3600)] {
            memory.rounds.unbegun.insert("hello".into(), vec![10_000; unbegun]);
            // Whether it was up in between.
            memory.note_waiting([].into_iter(), 10_000);
            let backs_off = |at: u64| memory.is_backing_off("hello", at, minute, WINDOW);
            assert!(!backs_off(10_000 + rest), "{unbegun}");
            assert!(rest == 0 || backs_off(10_000 + rest - 1), "{unbegun}");
        }
        assert!(!memory.is_backing_off("other", 10_000, minute, WINDOW));
        memory.note_start("hello", 10_000);
        memory.note_begun("hello", 10_000, true);
        assert!(!memory.is_backing_off("hello", 10_000, minute, WINDOW), "it has begun again");
    }

    #[test]
    fn a_deletion_lasts_from_when_it_was_seen_first() {
        let mut memory = Memory::default();
        memory.note_deleting(["hello"].into_iter(), 100);
        memory.note_deleting(["hello", "other"].into_iter(), 160);
        assert_eq!(memory.deleting_for("hello", 170), Duration::from_secs(70));
        assert_eq!(memory.deleting_for("other", 170), Duration::from_secs(10));
        assert_eq!(memory.deleting_for("none", 170), Duration::ZERO);
        memory.note_deleting([].into_iter(), 180);
        assert_eq!(memory.deleting_for("hello", 190), Duration::ZERO);
    }

    #[test]
    fn two_memories_know_what_either_does() {
        let mut one = restarted_at(&[10, 30]);
        let mut other = restarted_at(&[10, 20, 20]);
        other.note_start("other", 5);
        one.merge(other);
        assert_eq!(one.starts["hello"], [10, 20, 20, 30]);
        assert_eq!(one.starts["other"], [5]);
        let mut empty = Memory::default();
        empty.merge(one.clone());
        assert_eq!(empty, one);
    }

    #[test]
    fn a_thing_is_told_once_in_a_window() {
        let mut memory = Memory::default();
        assert!(memory.is_news("hello", "throttled", 100));
        assert!(!memory.is_news("hello", "throttled", 200));
        assert!(memory.is_news("hello", "malformed", 300));
        assert!(memory.is_news("hello", "throttled", 400));
        memory.settle(400 + 3600, WINDOW);
        assert!(memory.is_news("hello", "throttled", 4000));
    }
}
