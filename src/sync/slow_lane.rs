//! Who has to wait: keys that are costly to read or build, and keys that have cost much lately. Each waits once, whatever
//! is written to it meanwhile: its value is asked for when its turn comes.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use super::builder::{Done, Job};

/// Keys that may wait.
const MAX_WAITING: usize = 10_000;
/// Keys whose cost is remembered.
const MAX_DEBTORS: usize = 4096;
/// What a key may cost before it has to wait.
const CREDIT: Duration = Duration::from_millis(3);
/// A key's cost is forgotten at this share of the time that passes: so much of the companion is anybody's.
const FORGOTTEN_SHARE: u32 = 100;
/// A key rests so many times as long as its turn took ...
const REST: u32 = 10;
/// ... and no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// A key that was changed keeps its former record so long while it waits: then what that says is not believed any more.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often the companion looks for a result.
pub(super) const LOOK: Duration = Duration::from_millis(2);
/// How often it looks for those that wait too long.
const REVIEW: Duration = Duration::from_millis(500);
/// Resting keys that are passed over in the search for the next.
const PASSED_OVER: usize = 256;

/// The keys that wait.
#[derive(Debug, Default)]
pub(super) struct SlowLane {
    /// Cheap ones first, then in the order they came.
    queue: BTreeSet<(Duration, u64, Vec<u8>)>,
    waiting: HashMap<Vec<u8>, Waiting>,
    serial: u64,
    in_flight: Option<InFlight>,
    /// Since when the key whose turn it is now is known to have changed.
    turn_changed: Option<Instant>,
    debts: HashMap<Vec<u8>, Debt>,
    reviewed: Option<Instant>,
    builder: Option<(SyncSender<Job>, Receiver<Done>)>,
}

#[derive(Debug)]
struct Waiting {
    debt: Duration,
    serial: u64,
    /// Since when it is known to have changed.
    changed: Option<Instant>,
    /// Whether the source may have changed unseen since: if the key is gone by its turn, all keys may be.
    is_doubtful: bool,
}

/// A key whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub key: Vec<u8>,
    /// Since when it is known to have changed.
    changed: Option<Instant>,
    /// Whether the key may be gone because all are: that is for the comparison to judge.
    pub is_doubtful: bool,
}

#[derive(Debug)]
struct InFlight {
    key: Vec<u8>,
    /// Whether nothing else was made of the key meanwhile.
    is_valid: bool,
    changed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    cost: Duration,
    at: Instant,
    rests_until: Option<Instant>,
}

impl SlowLane {
    /// Has a thread do the jobs.
    pub fn set_builder(&mut self, jobs: SyncSender<Job>, results: Receiver<Done>) {
        self.builder = Some((jobs, results));
    }

    /// Whether the key waits, is being built, or has cost too much to be looked at now.
    pub fn must_wait(&self, key: &[u8], now: Instant) -> bool {
        self.waiting.contains_key(key)
            || self.in_flight.as_ref().is_some_and(|job| job.is_valid && job.key == key)
            || self.debts.get(key).is_some_and(|debt| debt.left(now) > CREDIT)
    }

    /// Has a key wait; false when too many do.
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
        let (serial, debt) = (self.serial, self.debts.get(key).map_or(Duration::ZERO, |debt| debt.left(now)));
        self.queue.insert((debt, serial, key.to_vec()));
        let changed = is_changed.then_some(now);
        self.waiting.insert(key.to_vec(), Waiting { debt, serial, changed, is_doubtful: false });
        true
    }

    /// The key whose turn it is, if nobody's is; it waits no longer.
    pub fn next(&mut self, now: Instant) -> Option<Turn> {
        if self.in_flight.is_some() {
            return None;
        }
        let rests = |key: &[u8]| self.debts.get(key).is_some_and(|debt| debt.rests_until > Some(now));
        let (_, _, key) = self.queue.iter().take(PASSED_OVER).find(|(_, _, key)| !rests(key))?.clone();
        let waiting = self.leave(&key)?;
        self.turn_changed = waiting.changed;
        Some(Turn { key, changed: waiting.changed, is_doubtful: waiting.is_doubtful })
    }

    /// Gives a turn back that came to nothing: the key waits on, and since when it has changed still counts.
    pub fn put_back(&mut self, turn: &Turn) {
        if self.enqueue(&turn.key, false, Instant::now())
            && let Some(waiting) = self.waiting.get_mut(&turn.key)
        {
            waiting.changed = turn.changed.or(waiting.changed);
            waiting.is_doubtful |= turn.is_doubtful;
        }
    }

    /// When to look again.
    pub fn look_at(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.is_some() {
            return Some(now + LOOK);
        }
        let rest = |(_, _, key): &(_, _, Vec<u8>)| self.debts.get(key).and_then(|debt| debt.rests_until).unwrap_or(now);
        self.queue.iter().take(PASSED_OVER).map(rest).min().map(|at| at.max(now + LOOK))
    }

    /// Hands a job to the thread. Gives it back when there is none.
    pub fn submit(&mut self, job: Job) -> Result<(), Job> {
        let key = job.key.clone();
        let Some((jobs, _)) = &self.builder else { return Err(job) };
        match jobs.try_send(job) {
            Ok(()) => {
                self.in_flight = Some(InFlight { key, is_valid: true, changed: self.turn_changed.take() });
                Ok(())
            }
            Err(error) => {
                // It is never full: there is one job at a time.
                self.builder = None;
                Err(match error {
                    std::sync::mpsc::TrySendError::Full(job) | std::sync::mpsc::TrySendError::Disconnected(job) => job,
                })
            }
        }
    }

    /// What the thread has done, if that still counts.
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

    /// Something else was made of the key: neither its turn nor its job counts.
    pub fn forget(&mut self, key: &[u8]) {
        self.leave(key);
        self.in_flight.iter_mut().filter(|job| job.key == key).for_each(|job| job.is_valid = false);
    }

    /// The source may have changed unseen: what is being built is out of date, and so is what a turn would find gone.
    pub fn restart(&mut self) {
        self.in_flight.iter_mut().for_each(|job| job.is_valid = false);
        self.waiting.values_mut().for_each(|waiting| waiting.is_doubtful = true);
    }

    /// Books what a key has cost.
    pub fn charge(&mut self, key: &[u8], cost: Duration, is_turn: bool) {
        let now = Instant::now();
        let before = self.debts.get(key).copied();
        if before.is_none() && self.debts.len() >= MAX_DEBTORS {
            self.debts.retain(|_, debt| !debt.left(now).is_zero());
            if self.debts.len() >= MAX_DEBTORS {
                self.debts.clear();
            }
        }
        let rest = is_turn.then(|| now + cost.saturating_mul(REST).min(LONGEST_REST));
        let rests_until = before.and_then(|debt| debt.rests_until).max(rest);
        let cost = before.map_or(Duration::ZERO, |debt| debt.left(now)) + cost;
        self.debts.insert(key.to_vec(), Debt { cost, at: now, rests_until });
    }

    /// Those that have changed and wait too long, for their turn or for its end, from time to time.
    pub fn overdue(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.reviewed.is_some_and(|at| now < at + REVIEW) {
            return Vec::new();
        }
        self.reviewed = Some(now);
        let is_overdue = |changed: Option<Instant>| changed.is_some_and(|since| now > since + LONGEST_WAIT);
        let waiting = self.waiting.iter().filter(|(_, waiting)| is_overdue(waiting.changed)).map(|(key, _)| key);
        let in_flight = self.in_flight.iter().filter(|job| job.is_valid && is_overdue(job.changed)).map(|job| &job.key);
        waiting.chain(in_flight).cloned().collect()
    }

    fn leave(&mut self, key: &[u8]) -> Option<Waiting> {
        let (key, waiting) = self.waiting.remove_entry(key)?;
        self.queue.remove(&(waiting.debt, waiting.serial, key));
        Some(waiting)
    }
}

impl Debt {
    /// What is not forgotten yet.
    fn left(&self, now: Instant) -> Duration {
        self.cost.saturating_sub(now.saturating_duration_since(self.at) / FORGOTTEN_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Kind, RouteKey};
    use crate::sync::builder::{Known, Value};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_key_waits_once_and_cheap_ones_go_first() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        lane.charge(b"costly", 50 * MS, false);
        for key in [b"costly".as_slice(), b"a", b"b", b"a"] {
            assert!(lane.enqueue(key, true, now) && lane.must_wait(key, now));
        }
        let order: Vec<_> = std::iter::from_fn(|| lane.next(now)).map(|turn| turn.key).collect();
        assert_eq!(order, [b"a".as_slice(), b"b", b"costly"]);
        assert!(!lane.must_wait(b"a", now));
    }

    #[test]
    fn who_has_cost_much_waits_until_that_is_forgotten() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        lane.charge(b"a", 2 * MS, false);
        assert!(!lane.must_wait(b"a", now));
        lane.charge(b"a", 2 * MS, false);
        assert!(lane.must_wait(b"a", now) && !lane.must_wait(b"b", now));
        assert!(!lane.must_wait(b"a", now + 150 * MS));
    }

    #[test]
    fn a_turn_is_followed_by_a_rest() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        lane.charge(b"a", 20 * MS, true);
        lane.enqueue(b"a", true, now);
        lane.enqueue(b"b", true, now);
        assert_eq!(lane.next(now).map(|turn| turn.key).as_deref(), Some(&b"b"[..]));
        assert_eq!(lane.next(now), None);
        let at = lane.look_at(now).unwrap();
        assert!(at > now + 150 * MS && at < now + 400 * MS);
        assert_eq!(lane.next(at).map(|turn| turn.key).as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn a_change_that_waits_too_long_is_told() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        lane.enqueue(b"compared", false, now);
        lane.enqueue(b"changed", true, now);
        assert!(lane.overdue(now).is_empty());
        let later = now + LONGEST_WAIT + MS;
        assert_eq!(lane.overdue(later), [b"changed"]);
        assert!(lane.overdue(later + MS).is_empty(), "so soon again");
    }

    #[test]
    fn a_change_whose_build_takes_too_long_is_overdue_too() {
        let mut lane = SlowLane::default();
        let (jobs, _queue) = std::sync::mpsc::sync_channel(1);
        let (_sender, results) = std::sync::mpsc::sync_channel(1);
        lane.set_builder(jobs, results);
        let now = Instant::now();
        lane.enqueue(b"prefix:a", true, now);
        let key = lane.next(now).unwrap().key;
        let record = RouteKey::try_new(Kind::Tool, b"a").unwrap();
        let job = Job { key, record, value: Value::Hash(Vec::new()), known: Known::default() };
        assert!(lane.submit(job).is_ok());
        let later = now + LONGEST_WAIT + MS;
        assert_eq!(lane.overdue(later), [b"prefix:a"]);
        lane.forget(b"prefix:a");
        assert!(lane.overdue(later + REVIEW).is_empty(), "something else was made of it");
    }

    #[test]
    fn a_key_that_waits_over_a_flush_is_doubtful_until_it_changes() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        lane.enqueue(b"a", true, now);
        lane.enqueue(b"b", true, now);
        lane.restart();
        lane.enqueue(b"a", false, now);
        lane.enqueue(b"b", true, now);
        lane.enqueue(b"c", false, now);
        let doubtful: Vec<_> = std::iter::from_fn(|| lane.next(now)).map(|turn| turn.is_doubtful).collect();
        assert_eq!(doubtful, [true, false, false]);
    }

    #[test]
    fn a_turn_that_came_to_nothing_changes_nothing() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        lane.enqueue(b"a", true, now);
        let turn = lane.next(now).unwrap();
        lane.put_back(&turn);
        assert_eq!(lane.overdue(now + LONGEST_WAIT + MS), [b"a"]);
        assert_eq!(lane.next(now), Some(turn));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut lane = SlowLane::default();
        let now = Instant::now();
        for n in 0..=MAX_WAITING {
            let key = n.to_string();
            assert_eq!(lane.enqueue(key.as_bytes(), true, now), n < MAX_WAITING);
            lane.charge(key.as_bytes(), 60_000 * MS, false);
            assert!(lane.debts.len() <= MAX_DEBTORS);
        }
        assert_eq!((lane.queue.len(), lane.waiting.len()), (MAX_WAITING, MAX_WAITING));
        lane.forget(b"7");
        assert_eq!((lane.queue.len(), lane.waiting.len()), (MAX_WAITING - 1, MAX_WAITING - 1));
    }
}
