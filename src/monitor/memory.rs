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
        self.starts.retain(|_, starts| {
            starts.iter_mut().for_each(|start| *start = (*start).min(now));
            starts.retain(|start| now - *start < window);
            !starts.is_empty()
        });
        self.rounds.told.retain(|_, told| {
            told.at = told.at.min(now);
            now - told.at < window
        });
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

    /// A tool is being restarted.
    pub fn note_start(&mut self, tool: &str, now: u64) {
        self.starts.entry(tool.to_owned()).or_default().push(now);
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
