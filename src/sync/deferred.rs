//! Keys that found the table full, and when they are retried.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Most keys remembered.
const MAX_KEYS: usize = 10_000;
/// Keys retried at once after space was freed.
const BATCH: usize = 50;
const BATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Keys deferred because the table was full.
#[derive(Debug, Default)]
pub(super) struct DeferredKeys {
    keys: BTreeSet<Vec<u8>>,
    /// Where the next batch begins.
    last: Vec<u8>,
    tried: Option<Instant>,
    /// Whether space was freed since the last batch.
    is_space_freed: bool,
}

impl DeferredKeys {
    pub(super) fn add(&mut self, key: &[u8]) {
        if self.keys.len() < MAX_KEYS {
            self.keys.insert(key.to_vec());
        }
    }

    /// Takes the keys to retry now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.keys.is_empty() || !self.is_space_freed || self.tried.is_some_and(|at| now < at + BATCH_INTERVAL) {
            return Vec::new();
        }
        (self.tried, self.is_space_freed) = (Some(now), false);
        let after = self.keys.range(self.last.clone()..);
        let taken: Vec<_> = after.chain(&self.keys).take(BATCH.min(self.keys.len())).cloned().collect();
        taken.iter().for_each(|key| _ = self.keys.remove(key));
        // The next batch begins after these keys.
        self.last = taken.last().cloned().unwrap_or_default();
        self.last.push(0);
        taken
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn forget(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// A change freed space in the table.
    pub(super) fn note_freed(&mut self) {
        self.is_space_freed = true;
    }
}
