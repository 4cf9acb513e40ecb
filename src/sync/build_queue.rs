//! The queue of costly keys: those with values that are costly to build, and those that used much CPU time lately. A key is
//! queued once however often it changes; its value is fetched when its turn comes.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use super::builder::{Done, Job};

/// Most keys in the queue.
const MAX_WAITING: usize = 10_000;
/// Most keys with a tracked cost.
const MAX_TRACKED: usize = 4096;
/// CPU time that a key may cost before it must queue.
const COST_BUDGET: Duration = Duration::from_millis(3);
/// A key's cost decays by 1/100 of elapsed time: one key may use that share of the companion without queuing.
const DECAY_DIVISOR: u32 = 100;
/// After its turn a key pauses for this many times the turn's cost ...
const PAUSE_FACTOR: u32 = 10;
/// ... but no longer than this.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A changed key keeps its old record for this long while it waits; then the record is emptied as stale.
const MAX_STALENESS: Duration = Duration::from_secs(5);
/// How often the companion checks for a result.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How often it checks for overdue keys.
const OVERDUE_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Most pausing keys that the search for the next key skips.
const MAX_SKIPPED: usize = 256;

/// Keys that wait for their turn, and their costs.
#[derive(Debug, Default)]
pub(super) struct BuildQueue {
    /// By cost, then by arrival.
    queue: BTreeSet<(Duration, u64, Vec<u8>)>,
    waiting: HashMap<Vec<u8>, Waiting>,
    serial: u64,
    in_flight: Option<InFlight>,
    /// When the key that has its turn is known to have changed.
    turn_changed: Option<Instant>,
    usage: HashMap<Vec<u8>, Usage>,
    overdue_checked_at: Option<Instant>,
    builder: Option<(SyncSender<Job>, Receiver<Done>)>,
}

#[derive(Debug)]
struct Waiting {
    usage: Duration,
    serial: u64,
    /// When the key is known to have changed.
    changed: Option<Instant>,
    /// Whether the source was flushed or the connection lost since: then a missing key may mean that all are missing.
    is_doubtful: bool,
}

/// A key that has its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub key: Vec<u8>,
    /// When the key is known to have changed.
    changed: Option<Instant>,
    /// Whether a missing key may mean that all are missing, which the guard must judge.
    pub is_doubtful: bool,
}

#[derive(Debug)]
struct InFlight {
    key: Vec<u8>,
    /// Whether the result is still wanted.
    is_valid: bool,
    changed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    cost: Duration,
    at: Instant,
    paused_until: Option<Instant>,
}

impl BuildQueue {
    pub fn set_builder(&mut self, jobs: SyncSender<Job>, results: Receiver<Done>) {
        self.builder = Some((jobs, results));
    }

    /// Whether the key is queued, is being built, or has cost too much to be handled now.
    pub fn must_wait(&self, key: &[u8], now: Instant) -> bool {
        self.waiting.contains_key(key)
            || self.in_flight.as_ref().is_some_and(|job| job.is_valid && job.key == key)
            || self.usage.get(key).is_some_and(|usage| usage.left(now) > COST_BUDGET)
    }

    /// Queues a key; false if the queue is full.
    pub fn enqueue(&mut self, key: &[u8], is_changed: bool, now: Instant) -> bool {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.changed = waiting.changed.or(is_changed.then_some(now));
            waiting.is_doubtful &= !is_changed;
            return true;
        }
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.serial += 1;
        let (serial, usage) = (self.serial, self.usage.get(key).map_or(Duration::ZERO, |usage| usage.left(now)));
        self.queue.insert((usage, serial, key.to_vec()));
        let changed = is_changed.then_some(now);
        self.waiting.insert(key.to_vec(), Waiting { usage, serial, changed, is_doubtful: false });
        true
    }

    /// Takes the next key from the queue; `None` while a build runs or all keys pause.
    pub fn next(&mut self, now: Instant) -> Option<Turn> {
        if self.in_flight.is_some() {
            return None;
        }
        let is_paused = |key: &[u8]| self.usage.get(key).is_some_and(|usage| usage.paused_until > Some(now));
        let (_, _, key) = self.queue.iter().take(MAX_SKIPPED).find(|(_, _, key)| !is_paused(key))?.clone();
        let waiting = self.leave(&key)?;
        self.turn_changed = waiting.changed;
        Some(Turn { key, changed: waiting.changed, is_doubtful: waiting.is_doubtful })
    }

    /// Queues a key again after its turn failed; the time of its change is kept.
    pub fn put_back(&mut self, turn: &Turn) {
        if self.enqueue(&turn.key, false, Instant::now())
            && let Some(waiting) = self.waiting.get_mut(&turn.key)
        {
            waiting.changed = turn.changed.or(waiting.changed);
            waiting.is_doubtful |= turn.is_doubtful;
        }
    }

    /// When to call [`Self::next`] or [`Self::take_done`] again.
    pub fn next_poll(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.is_some() {
            return Some(now + POLL_INTERVAL);
        }
        let pause =
            |(_, _, key): &(_, _, Vec<u8>)| self.usage.get(key).and_then(|usage| usage.paused_until).unwrap_or(now);
        self.queue.iter().take(MAX_SKIPPED).map(pause).min().map(|at| at.max(now + POLL_INTERVAL))
    }

    /// Sends a job to the builder thread; returns it if there is no thread.
    pub fn submit(&mut self, job: Job) -> Result<(), Job> {
        let key = job.key.clone();
        let Some((jobs, _)) = &self.builder else { return Err(job) };
        match jobs.try_send(job) {
            Ok(()) => {
                self.in_flight = Some(InFlight { key, is_valid: true, changed: self.turn_changed.take() });
                Ok(())
            }
            Err(error) => {
                // Never full: there is one job at a time.
                self.builder = None;
                Err(match error {
                    std::sync::mpsc::TrySendError::Full(job) | std::sync::mpsc::TrySendError::Disconnected(job) => job,
                })
            }
        }
    }

    /// When the key whose turn it is, or whose build has just finished, was changed.
    pub fn turn_changed(&self) -> Option<Instant> {
        self.turn_changed
    }

    /// The builder's result, if it is still wanted.
    pub fn take_done(&mut self) -> Option<Done> {
        let (_, results) = self.builder.as_ref()?;
        let done = match results.try_recv() {
            Ok(done) => done,
            Err(std::sync::mpsc::TryRecvError::Empty) => return None,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                (self.builder, self.in_flight) = (None, None);
                return None;
            }
        };
        self.charge(&done.job.key, done.cost, true);
        self.in_flight.take().filter(|job| job.is_valid).map(|_| done)
    }

    /// Cancels the key's turn and its running job.
    pub fn forget(&mut self, key: &[u8]) {
        self.leave(key);
        self.in_flight.iter_mut().filter(|job| job.key == key).for_each(|job| job.is_valid = false);
    }

    /// After a flush or a lost connection: cancels the running job and marks all queued keys as doubtful.
    pub fn restart(&mut self) {
        self.in_flight.iter_mut().for_each(|job| job.is_valid = false);
        self.waiting.values_mut().for_each(|waiting| waiting.is_doubtful = true);
    }

    /// Adds to a key's cost.
    pub fn charge(&mut self, key: &[u8], cost: Duration, is_turn: bool) {
        let now = Instant::now();
        let before = self.usage.get(key).copied();
        if before.is_none() && self.usage.len() >= MAX_TRACKED {
            self.usage.retain(|_, usage| !usage.left(now).is_zero());
            if self.usage.len() >= MAX_TRACKED {
                self.usage.clear();
            }
        }
        let pause = is_turn.then(|| now + cost.saturating_mul(PAUSE_FACTOR).min(MAX_PAUSE));
        let paused_until = before.and_then(|usage| usage.paused_until).max(pause);
        let cost = before.map_or(Duration::ZERO, |usage| usage.left(now)) + cost;
        self.usage.insert(key.to_vec(), Usage { cost, at: now, paused_until });
    }

    /// Changed keys that have waited longer than [`MAX_STALENESS`], for their turn or its end. Empty between checks.
    pub fn overdue(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.overdue_checked_at.is_some_and(|at| now < at + OVERDUE_CHECK_INTERVAL) {
            return Vec::new();
        }
        self.overdue_checked_at = Some(now);
        let is_overdue = |changed: Option<Instant>| changed.is_some_and(|since| now > since + MAX_STALENESS);
        let waiting = self.waiting.iter().filter(|(_, waiting)| is_overdue(waiting.changed)).map(|(key, _)| key);
        let in_flight = self.in_flight.iter().filter(|job| job.is_valid && is_overdue(job.changed)).map(|job| &job.key);
        waiting.chain(in_flight).cloned().collect()
    }

    fn leave(&mut self, key: &[u8]) -> Option<Waiting> {
        let (key, waiting) = self.waiting.remove_entry(key)?;
        self.queue.remove(&(waiting.usage, waiting.serial, key));
        Some(waiting)
    }
}

impl Usage {
    /// The cost that has not decayed yet.
    fn left(&self, now: Instant) -> Duration {
        self.cost.saturating_sub(now.saturating_duration_since(self.at) / DECAY_DIVISOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Kind, RouteKey};
    use crate::sync::builder::{Known, Value};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn keys_queue_once_and_cheap_ones_go_first() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        build_queue.charge(b"costly", 50 * MS, false);
        for key in [b"costly".as_slice(), b"a", b"b", b"a"] {
            assert!(build_queue.enqueue(key, true, now) && build_queue.must_wait(key, now));
        }
        let order: Vec<_> = std::iter::from_fn(|| build_queue.next(now)).map(|turn| turn.key).collect();
        assert_eq!(order, [b"a".as_slice(), b"b", b"costly"]);
        assert!(!build_queue.must_wait(b"a", now));
    }

    #[test]
    fn costly_keys_queue_until_their_cost_decays() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        build_queue.charge(b"a", 2 * MS, false);
        assert!(!build_queue.must_wait(b"a", now));
        build_queue.charge(b"a", 2 * MS, false);
        assert!(build_queue.must_wait(b"a", now) && !build_queue.must_wait(b"b", now));
        assert!(!build_queue.must_wait(b"a", now + 150 * MS));
    }

    #[test]
    fn a_key_pauses_after_its_turn() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        build_queue.charge(b"a", 20 * MS, true);
        build_queue.enqueue(b"a", true, now);
        build_queue.enqueue(b"b", true, now);
        assert_eq!(build_queue.next(now).map(|turn| turn.key).as_deref(), Some(&b"b"[..]));
        assert_eq!(build_queue.next(now), None);
        let at = build_queue.next_poll(now).unwrap();
        assert!(at > now + 150 * MS && at < now + 400 * MS);
        assert_eq!(build_queue.next(at).map(|turn| turn.key).as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn a_change_that_waits_too_long_is_overdue() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        build_queue.enqueue(b"compared", false, now);
        build_queue.enqueue(b"changed", true, now);
        assert!(build_queue.overdue(now).is_empty());
        let later = now + MAX_STALENESS + MS;
        assert_eq!(build_queue.overdue(later), [b"changed"]);
        assert!(build_queue.overdue(later + MS).is_empty(), "checked a moment ago");
    }

    #[test]
    fn a_change_that_builds_too_long_is_overdue() {
        let mut build_queue = BuildQueue::default();
        let (jobs, _queue) = std::sync::mpsc::sync_channel(1);
        let (_sender, results) = std::sync::mpsc::sync_channel(1);
        build_queue.set_builder(jobs, results);
        let now = Instant::now();
        build_queue.enqueue(b"prefix:a", true, now);
        let key = build_queue.next(now).unwrap().key;
        let record = RouteKey::try_new(Kind::Tool, b"a").unwrap();
        let job = Job { key, record, value: Value::Hash(Vec::new()), known: Known::default() };
        assert!(build_queue.submit(job).is_ok());
        let later = now + MAX_STALENESS + MS;
        assert_eq!(build_queue.overdue(later), [b"prefix:a"]);
        build_queue.forget(b"prefix:a");
        assert!(build_queue.overdue(later + OVERDUE_CHECK_INTERVAL).is_empty(), "cancelled");
    }

    #[test]
    fn queued_keys_are_doubtful_after_a_flush_until_they_change() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        build_queue.enqueue(b"a", true, now);
        build_queue.enqueue(b"b", true, now);
        build_queue.restart();
        build_queue.enqueue(b"a", false, now);
        build_queue.enqueue(b"b", true, now);
        build_queue.enqueue(b"c", false, now);
        let doubtful: Vec<_> = std::iter::from_fn(|| build_queue.next(now)).map(|turn| turn.is_doubtful).collect();
        assert_eq!(doubtful, [true, false, false]);
    }

    #[test]
    fn a_failed_turn_keeps_the_time_of_the_change() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        build_queue.enqueue(b"a", true, now);
        let turn = build_queue.next(now).unwrap();
        build_queue.put_back(&turn);
        assert_eq!(build_queue.overdue(now + MAX_STALENESS + MS), [b"a"]);
        assert_eq!(build_queue.next(now), Some(turn));
    }

    #[test]
    fn memory_is_bounded() {
        let mut build_queue = BuildQueue::default();
        let now = Instant::now();
        for n in 0..=MAX_WAITING {
            let key = n.to_string();
            assert_eq!(build_queue.enqueue(key.as_bytes(), true, now), n < MAX_WAITING);
            build_queue.charge(key.as_bytes(), 60_000 * MS, false);
            assert!(build_queue.usage.len() <= MAX_TRACKED);
        }
        assert_eq!((build_queue.queue.len(), build_queue.waiting.len()), (MAX_WAITING, MAX_WAITING));
        build_queue.forget(b"7");
        assert_eq!((build_queue.queue.len(), build_queue.waiting.len()), (MAX_WAITING - 1, MAX_WAITING - 1));
    }
}
