//! Keys with replies that broke a connection: fetched again only when known to be small enough, or alone on a separate
//! connection with exponential backoff.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Backoff per key: the first wait is at most this ...
const FIRST: Duration = Duration::from_secs(5);
/// ... and the longest this.
const LONGEST: Duration = Duration::from_secs(3600);
/// The pause after an attempt, in multiples of its duration: all other keys have nine tenths of the time.
const PAUSE_FACTOR: u32 = 9;

/// The keys and their retry times.
#[derive(Debug, Default)]
pub(super) struct Oversized {
    keys: BTreeMap<Vec<u8>, Retry>,
    /// When the next attempt at any key may begin.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Retry {
    backoff: Backoff,
    /// `None` if the key is known to be too large.
    due: Option<Instant>,
}

impl Oversized {
    pub fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.keys.keys().cloned().collect()
    }

    /// The key's reply broke a connection; the key may or may not be the cause.
    pub fn mark_suspect(&mut self, key: &[u8]) {
        let retry = self.retry(key);
        retry.due = Some(Instant::now() + retry.backoff.next_delay());
    }

    /// The key is too large: no retry.
    pub fn mark_too_large(&mut self, key: &[u8]) {
        self.retry(key).due = None;
    }

    fn retry(&mut self, key: &[u8]) -> &mut Retry {
        let new = || Retry { backoff: Backoff::between(FIRST, LONGEST), due: None };
        self.keys.entry(key.to_vec()).or_insert_with(new)
    }

    /// The key is fetched like any other again.
    pub fn release(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// The key to retry now, if any is due.
    pub fn due(&self, now: Instant) -> Option<Vec<u8>> {
        if self.paused_until.is_some_and(|rested| now < rested) {
            return None;
        }
        let due = self.keys.iter().filter_map(|(key, retry)| Some((retry.due.filter(|&due| due <= now)?, key)));
        due.min().map(|(_, key)| key.clone())
    }

    /// An attempt that began at `begun` is over: schedules the pause.
    pub fn rest(&mut self, begun: Instant) {
        let now = Instant::now();
        self.paused_until = Some(now + now.saturating_duration_since(begun) * PAUSE_FACTOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_are_retried_at_growing_intervals() {
        let mut oversized = Oversized::default();
        let begun = Instant::now();
        let waits: Vec<Duration> = (0..20)
            .map(|_| {
                oversized.mark_suspect(b"a");
                assert_eq!(oversized.due(Instant::now()), None);
                oversized.keys[&b"a"[..]].due.unwrap() - begun
            })
            .collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST + Duration::from_secs(1), "{waits:?}");
        assert!(waits[3] > waits[0] * 3 && waits[19] >= LONGEST / 2, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST + Duration::from_secs(1)), "{waits:?}");
        oversized.release(b"a");
        assert!(!oversized.contains(b"a"));
    }

    #[test]
    fn longest_wait_is_next_and_too_large_keys_are_not_retried() {
        let mut oversized = Oversized::default();
        for key in [&b"b"[..], b"a", b"large"] {
            oversized.mark_suspect(key);
        }
        oversized.mark_too_large(b"large");
        let later = Instant::now() + LONGEST;
        let first = oversized.due(later).unwrap();
        oversized.release(&first);
        let second = oversized.due(later).unwrap();
        assert_ne!(first, second);
        // All other keys have most of the time, however many suspects there are.
        oversized.rest(Instant::now().checked_sub(Duration::from_secs(6)).unwrap());
        assert_eq!(oversized.due(Instant::now() + Duration::from_secs(50)), None);
        assert_eq!(oversized.due(later), Some(second.clone()));
        oversized.release(&second);
        assert_eq!((oversized.due(later), oversized.keys()), (None, vec![b"large".to_vec()]));
    }
}
