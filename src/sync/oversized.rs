//! Keys whose replies broke a connection: asked for again only once they are known to be small enough, or each on a connection
//! of its own, at growing intervals.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// The first wait before such a key is asked for again is at most this ...
const FIRST: Duration = Duration::from_secs(5);
/// ... and none is longer than this.
const LONGEST: Duration = Duration::from_secs(3600);
/// Between attempts at any of them: whatever they cost, others have nine tenths of the time.
const REST_FACTOR: u32 = 9;

/// The keys, and when each may be asked for again.
#[derive(Debug, Default)]
pub(super) struct Oversized {
    keys: BTreeMap<Vec<u8>, Trial>,
    /// When the next one may be, whichever it is.
    rested_at: Option<Instant>,
}

#[derive(Debug)]
struct Trial {
    backoff: Backoff,
    /// `None` when it is known to be too large.
    due: Option<Instant>,
}

impl Oversized {
    /// Whether the key is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    /// All of them.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.keys.keys().cloned().collect()
    }

    /// A reply about the key broke a connection. Whether the key is to blame is not known.
    pub fn suspect(&mut self, key: &[u8]) {
        let trial = self.trial(key);
        trial.due = Some(Instant::now() + trial.backoff.next_delay());
    }

    /// The key is too large: no need to ask.
    pub fn convict(&mut self, key: &[u8]) {
        self.trial(key).due = None;
    }

    fn trial(&mut self, key: &[u8]) -> &mut Trial {
        let new = || Trial { backoff: Backoff::between(FIRST, LONGEST), due: None };
        self.keys.entry(key.to_vec()).or_insert_with(new)
    }

    /// The key is like any other again.
    pub fn acquit(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// The key to be asked for now, if any is due.
    pub fn due(&self, now: Instant) -> Option<Vec<u8>> {
        if self.rested_at.is_some_and(|rested| now < rested) {
            return None;
        }
        let due = self.keys.iter().filter_map(|(key, trial)| Some((trial.due.filter(|&due| due <= now)?, key)));
        due.min().map(|(_, key)| key.clone())
    }

    /// An attempt at one of them began at `begun`, and is over.
    pub fn rest(&mut self, begun: Instant) {
        let now = Instant::now();
        self.rested_at = Some(now + now.saturating_duration_since(begun) * REST_FACTOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_asked_for_again_at_growing_intervals() {
        let mut oversized = Oversized::default();
        let begun = Instant::now();
        let waits: Vec<Duration> = (0..20)
            .map(|_| {
                oversized.suspect(b"a");
                assert_eq!(oversized.due(Instant::now()), None);
                oversized.keys[&b"a"[..]].due.unwrap() - begun
            })
            .collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST + Duration::from_secs(1), "{waits:?}");
        assert!(waits[3] > waits[0] * 3 && waits[19] >= LONGEST / 2, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST + Duration::from_secs(1)), "{waits:?}");
        oversized.acquit(b"a");
        assert!(!oversized.contains(b"a"));
    }

    #[test]
    fn the_one_that_has_waited_longest_is_next_and_what_is_too_large_is_not_asked_for() {
        let mut oversized = Oversized::default();
        for key in [&b"b"[..], b"a", b"large"] {
            oversized.suspect(key);
        }
        oversized.convict(b"large");
        let later = Instant::now() + LONGEST;
        let first = oversized.due(later).unwrap();
        oversized.acquit(&first);
        let second = oversized.due(later).unwrap();
        assert_ne!(first, second);
        // However many there are, others have most of the time.
        oversized.rest(Instant::now().checked_sub(Duration::from_secs(6)).unwrap());
        assert_eq!(oversized.due(Instant::now() + Duration::from_secs(50)), None);
        assert_eq!(oversized.due(later), Some(second.clone()));
        oversized.acquit(&second);
        assert_eq!((oversized.due(later), oversized.keys()), (None, vec![b"large".to_vec()]));
    }
}
