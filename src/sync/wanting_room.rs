//! Keys that the table had no room for, and when they are tried again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Keys that are known to want room, and how many of them are tried how often when there is some.
const MAX_WANTING_ROOM: usize = 10_000;
const TRIED_AGAIN: usize = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// Keys that the table had no room for.
#[derive(Debug, Default)]
pub(super) struct WantingRoom {
    keys: BTreeSet<Vec<u8>>,
    /// The one that was tried last.
    last: Vec<u8>,
    tried: Option<Instant>,
    /// Whether there is more room since.
    is_some_freed: bool,
}

impl WantingRoom {
    /// There is no room for the key now.
    pub(super) fn add(&mut self, key: &[u8]) {
        if self.keys.len() < MAX_WANTING_ROOM {
            self.keys.insert(key.to_vec());
        }
    }

    /// Those whose turn it is to be tried again.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.keys.is_empty() || !self.is_some_freed || self.tried.is_some_and(|at| now < at + BETWEEN_TRIES) {
            return Vec::new();
        }
        (self.tried, self.is_some_freed) = (Some(now), false);
        let after = self.keys.range(self.last.clone()..);
        let taken: Vec<_> = after.chain(&self.keys).take(TRIED_AGAIN.min(self.keys.len())).cloned().collect();
        taken.iter().for_each(|key| _ = self.keys.remove(key));
        // The next round goes on behind them.
        self.last = taken.last().cloned().unwrap_or_default();
        self.last.push(0);
        taken
    }

    /// Whether there was no room for the key.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    /// The key wants no room any more.
    pub(super) fn forget(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// There may be room for others.
    pub(super) fn note_freed(&mut self) {
        self.is_some_freed = true;
    }
}
