//! Which backends failed lately: shared by all workers, with the meaning of nginx's own `max_fails` and `fail_timeout`.
//!
//! An entry belongs to a record, a scheme and an address: what one tenant finds out about an address, or makes of it, is
//! nothing to another. An edited route changes nothing. Only routes with several backends ask.
//!
//! # What one tenant can cost another
//! A record's entries all lie in its window, a few neighbouring lines that the table's keyed hash chooses, and so nobody who
//! picks names. In a full line, whoever has most entries there gives one up, the oldest. So an entry is lost early only
//! when at least [`PER_LINE`] other records, each with a failing backend in that very line, are there at the same time: with
//! 16m of table (1,024 lines, windows of 16) that takes some 250 records whose 64 backends all fail again and again. And a lost
//! entry means that one backend is tried once too early.
//!
//! # Two words
//! An entry's state carries some bits of its key, and only [`AtomicU64::compare_exchange`] changes it: what a worker read of
//! a former key's state is never taken for the present one's, and of two workers one has the probe.

use std::net::SocketAddr;
use std::time::Duration;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::route::{Scheme, draw_for_addr};

/// Entries of a line.
const PER_LINE: usize = 4;
/// Lines of a window, at most; and how many windows there must at least be room for.
const WINDOW: usize = 16;
const WINDOWS: usize = 32;
/// Times that a worker looks again at what others change at this moment.
const TRIES: usize = 8;

/// When a backend counts as failed, as nginx's `server` parameters of these names document it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Failures that take a backend out, unless an answer comes between; 0 never does.
    pub max_fails: u16,
    /// For how long it then stays out, before one request is let through to it.
    pub fail_timeout: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { max_fails: 1, fail_timeout: Duration::from_secs(10) }
    }
}

/// Four entries.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct HealthLine([Entry; PER_LINE]);

#[derive(Debug)]
struct Entry {
    /// `owner 32 | backend 32`, of a [`HealthKey`].
    key: AtomicU64,
    /// [`State`]; 0 is free.
    state: AtomicU64,
}

/// A backend of a record, as it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthKey {
    owner: u64,
    backend: u64,
}

impl HealthKey {
    /// `owner` is [`Record::owner`](super::Record::owner).
    pub fn new(owner: u64, scheme: Scheme, addr: SocketAddr) -> Self {
        Self { owner, backend: draw_for_addr(owner, scheme, addr) }
    }

    /// Owners are told apart by half of their hash here, and by what chose the window.
    fn word(self) -> u64 {
        self.owner << 32 | self.backend >> 32
    }
}

/// `checked 32 | tag 15 | probed 1 | fails 16`, from the highest bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// When the backend failed, or was let in for a probe, the last time.
    checked: u32,
    /// Of the key's hash.
    tag: u16,
    /// Whether `checked` is a probe's, so later than the last failure: nginx has `accessed < checked` for it.
    probed: bool,
    /// Failures since the last answer to a probe.
    fails: u16,
}

impl State {
    const TAG: u16 = (1 << 15) - 1;

    fn of(word: u64) -> Self {
        Self {
            checked: (word >> 32) as u32,
            tag: (word >> 17) as u16 & Self::TAG,
            probed: word >> 16 & 1 == 1,
            fails: word as u16,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.checked) << 32
            | u64::from(self.tag & Self::TAG) << 17
            | u64::from(self.probed) << 16
            | u64::from(self.fails)
    }

    fn is_due(self, now: u32, settings: HealthSettings) -> bool {
        u64::from(now.saturating_sub(self.checked)) > settings.fail_timeout.as_secs()
    }

    fn is_out(self, settings: HealthSettings) -> bool {
        settings.max_fails > 0 && self.fails >= settings.max_fails
    }
}

impl HealthLine {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self(std::array::from_fn(|_| Entry { key: zero(), state: zero() }))
    }
}

/// A view of the failure state.
#[derive(Clone, Copy, Debug)]
pub struct Health<'a> {
    lines: &'a [HealthLine],
}

impl<'a> Health<'a> {
    pub(super) fn new(lines: &'a [HealthLine]) -> Self {
        Self { lines }
    }

    pub(super) fn len(self) -> usize {
        self.lines.len()
    }

    /// Whether a request may go to the backend at `now` (seconds of a clock all workers share). Of one that is out, and for
    /// long enough, the first who asks is let in, and nobody else for another `fail_timeout`: so ask only for a request that
    /// goes there if it may.
    pub fn admits(self, key: HealthKey, now: u32, settings: HealthSettings) -> bool {
        let Some(entry) = self.find(key) else { return true };
        for _ in 0..TRIES {
            let word = entry.state.load(Relaxed);
            let state = State::of(word);
            if state.fails == 0 || state.tag != key.tag() {
                return true;
            }
            if !state.is_due(now, settings) {
                return !state.is_out(settings);
            }
            let probed = State { checked: now, probed: true, ..state };
            if entry.state.compare_exchange(word, probed.word(), Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        false
    }

    /// Counts a failure; `true` when the backend is out now.
    pub fn failed(self, key: HealthKey, now: u32, settings: HealthSettings) -> bool {
        let Some(entry) = self.find(key).or_else(|| self.claim(key)) else { return false };
        for _ in 0..TRIES {
            let word = entry.state.load(Relaxed);
            let state = State::of(word);
            let before = if state.tag == key.tag() { state.fails } else { 0 };
            let failed = State { checked: now, tag: key.tag(), probed: false, fails: before.saturating_add(1) };
            if entry.state.compare_exchange(word, failed.word(), Relaxed, Relaxed).is_ok() {
                return failed.is_out(settings);
            }
        }
        // So many others have just counted theirs.
        false
    }

    /// The backend has answered: its failures are forgotten if it was let in after the last of them. An answer to a request
    /// of before says nothing.
    pub fn answered(self, key: HealthKey) {
        let Some(entry) = self.find(key) else { return };
        for _ in 0..TRIES {
            let word = entry.state.load(Relaxed);
            let state = State::of(word);
            if !state.probed
                || state.tag != key.tag()
                || entry.state.compare_exchange(word, 0, Relaxed, Relaxed).is_ok()
            {
                return;
            }
        }
    }

    /// The line of the key: one of its owner's window.
    fn line(self, key: HealthKey) -> &'a [Entry] {
        let window = (self.lines.len() / WINDOWS).clamp(1, WINDOW);
        let first = scale(key.owner, self.lines.len());
        let at = (first + scale(key.backend << 32, window)) % self.lines.len().max(1);
        self.lines.get(at).map_or(&[], |line| &line.0)
    }

    fn find(self, key: HealthKey) -> Option<&'a Entry> {
        self.line(key).iter().find(|entry| entry.key.load(Relaxed) == key.word())
    }

    /// A free entry, or one of whoever has most in the line, made the key's own. `None` if another worker was quicker.
    fn claim(self, key: HealthKey) -> Option<&'a Entry> {
        let seen = |entry: &'a Entry| (entry, entry.key.load(Relaxed), State::of(entry.state.load(Relaxed)));
        let line = self.line(key).iter().map(seen);
        let owner = |word: u64| word >> 32;
        let taken = |word: u64| {
            let others = line.clone().filter(|(_, other, state)| state.fails > 0 && owner(*other) == owner(word));
            others.count() + usize::from(owner(word) == owner(key.word()))
        };
        // Free ones first, then by how many their owner has, then by age.
        let (entry, former, _) = line.clone().min_by_key(|(_, word, state)| match state.fails {
            0 => (false, 0, 0),
            _ => (true, usize::MAX - taken(*word), state.checked),
        })?;
        entry.key.compare_exchange(former, key.word(), Relaxed, Relaxed).ok()?;
        Some(entry)
    }
}

impl HealthKey {
    fn tag(self) -> u16 {
        (self.backend as u16 ^ (self.owner >> 16) as u16) & State::TAG
    }
}

/// A hash, of which the high bits count, as a number below `count`.
fn scale(hash: u64, count: usize) -> usize {
    (((hash >> 32) * count as u64) >> 32) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: HealthSettings = HealthSettings { max_fails: 2, fail_timeout: Duration::from_secs(10) };
    const ONCE: HealthSettings = HealthSettings { max_fails: 1, ..SETTINGS };
    const OWNER: u64 = 0x1234_5678_9abc_def0;

    fn key(owner: u64, port: u16) -> HealthKey {
        HealthKey::new(owner, Scheme::Http, SocketAddr::from(([10, 0, 0, 1], port)))
    }

    fn lines(count: usize) -> Vec<HealthLine> {
        std::iter::repeat_with(HealthLine::new).take(count).collect()
    }

    #[test]
    fn a_backend_that_is_out_gets_one_request_per_fail_timeout() {
        let lines = lines(1);
        let health = Health::new(&lines);
        assert!(!health.failed(key(OWNER, 1), 100, SETTINGS));
        assert!(health.admits(key(OWNER, 1), 100, SETTINGS));
        assert!(health.failed(key(OWNER, 1), 105, SETTINGS));
        let admitted: Vec<_> = (105..140).filter(|&now| health.admits(key(OWNER, 1), now, SETTINGS)).collect();
        assert_eq!(admitted, [116, 127, 138]);
        assert!(health.admits(key(OWNER, 2), 105, SETTINGS));
    }

    #[test]
    fn only_an_answer_to_a_probe_readmits() {
        let lines = lines(1);
        let health = Health::new(&lines);
        assert!(health.failed(key(OWNER, 1), 100, ONCE));
        health.answered(key(OWNER, 1));
        assert!(!health.admits(key(OWNER, 1), 101, ONCE), "an old request's answer");
        assert!(health.admits(key(OWNER, 1), 111, ONCE));
        assert!(!health.admits(key(OWNER, 1), 111, ONCE));
        health.answered(key(OWNER, 1));
        assert!(health.admits(key(OWNER, 1), 111, ONCE) && health.admits(key(OWNER, 1), 111, ONCE));
    }

    #[test]
    fn another_record_and_another_scheme_are_not_touched() {
        let lines = lines(1);
        let health = Health::new(&lines);
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        assert!(health.failed(HealthKey::new(OWNER, Scheme::Https, addr), 100, ONCE));
        assert!(health.admits(HealthKey::new(OWNER, Scheme::Http, addr), 100, ONCE));
        assert!(health.admits(HealthKey::new(OWNER + 1, Scheme::Https, addr), 100, ONCE));
        assert!(!health.admits(HealthKey::new(OWNER, Scheme::Https, addr), 100, ONCE));
    }

    #[test]
    fn zero_max_fails_never_takes_out() {
        let lines = lines(1);
        let never = HealthSettings { max_fails: 0, ..SETTINGS };
        assert!(!Health::new(&lines).failed(key(1, 1), 1, never) && Health::new(&lines).admits(key(1, 1), 1, never));
    }

    #[test]
    fn a_full_line_takes_from_whoever_has_most_in_it() {
        let lines = lines(1);
        let health = Health::new(&lines);
        assert!(health.failed(key(7, 1), 100, ONCE));
        for port in 1..=64 {
            assert!(health.failed(key(8, port), 100 + u32::from(port), ONCE));
        }
        assert!(!health.admits(key(7, 1), 105, ONCE), "the other record's entry is there");
        let kept = (1..=64).filter(|&port| {
            !health.admits(key(8, port), 164, HealthSettings { fail_timeout: Duration::from_secs(1000), ..ONCE })
        });
        assert_eq!(kept.collect::<Vec<_>>(), [62, 63, 64], "its own oldest made room");
    }

    #[test]
    fn what_one_record_can_push_out_is_bounded_by_its_window() {
        let lines = lines(1024);
        let health = Health::new(&lines);
        let victims: Vec<_> = (0..500u64).map(|n| key(crate::route::key_hash(&n.to_le_bytes()), 1)).collect();
        assert!(victims.iter().all(|&victim| health.failed(victim, 100, ONCE)));
        // As many records as one project may have domains, and the most backends that each can have.
        for record in 1000..1050u64 {
            let owner = crate::route::key_hash(&record.to_le_bytes());
            for port in 1..=crate::route::MAX_BACKENDS as u16 {
                health.failed(key(owner, port), 101, ONCE);
            }
        }
        let lost = victims.iter().filter(|&&victim| health.admits(victim, 102, ONCE)).count();
        assert!(lost <= 10, "{lost} of {}", victims.len());
    }

    #[test]
    fn all_of_a_usual_number_of_backends_are_remembered() {
        let lines = lines(1024);
        for owner in (0..100u64).map(|n| crate::route::key_hash(&n.to_le_bytes())) {
            let health = Health::new(&lines);
            (1..=8).for_each(|port| assert!(health.failed(key(owner, port), 100, ONCE)));
            assert!((1..=8).all(|port| !health.admits(key(owner, port), 101, ONCE)), "{owner:x}");
        }
    }

    #[test]
    fn of_many_workers_one_has_the_probe() {
        let lines = lines(1);
        let health = Health::new(&lines);
        for round in 1..200 {
            assert!(health.failed(key(OWNER, 1), round * 100, ONCE));
            let admitted = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let admitted_here = health.admits(key(OWNER, 1), round * 100 + 50, ONCE);
                        admitted.fetch_add(admitted_here.into(), Relaxed)
                    });
                }
            });
            assert_eq!(admitted.into_inner(), 1);
        }
    }

    #[test]
    fn a_state_reads_as_it_was_written() {
        let state = State { checked: u32::MAX - 1, tag: 0x7abc, probed: true, fails: 0xfedc };
        assert_eq!(State::of(state.word()), state);
        let state = State { checked: 1, tag: 0x1543, probed: false, fails: 1 };
        assert_eq!(State::of(state.word()), state);
    }

    /// `ngx_http_upstream_rr_peer_t`, and what the round robin of nginx 1.22 to 1.28 does with it.
    #[derive(Default)]
    struct NginxPeer {
        fails: u32,
        accessed: u32,
        checked: u32,
    }

    impl NginxPeer {
        fn admits(&mut self, now: u32, settings: HealthSettings) -> bool {
            let (max_fails, fail_timeout) = (u32::from(settings.max_fails), settings.fail_timeout.as_secs() as u32);
            if max_fails > 0 && self.fails >= max_fails && now - self.checked <= fail_timeout {
                return false;
            }
            if now - self.checked > fail_timeout {
                self.checked = now;
            }
            true
        }

        fn free(&mut self, now: u32, is_failure: bool) {
            if is_failure {
                self.fails += 1;
                (self.accessed, self.checked) = (now, now);
            } else if self.accessed < self.checked {
                self.fails = 0;
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Wait(u32),
        Ask,
        Fail,
        Answer,
    }

    proptest! {
        #[test]
        fn it_admits_when_nginx_does(
            max_fails in 0..4u16,
            seconds in 1..4u64,
            events in proptest::collection::vec(
                prop_oneof![(0..6u32).prop_map(Event::Wait), Just(Event::Ask), Just(Event::Fail), Just(Event::Answer)], 0..200,
            ),
        ) {
            let settings = HealthSettings { max_fails, fail_timeout: Duration::from_secs(seconds) };
            let lines = lines(1);
            let (health, mut nginx) = (Health::new(&lines), NginxPeer::default());
            let (mut now, mut open) = (1000, 0);
            for event in events {
                match event {
                    Event::Wait(seconds) => now += seconds,
                    Event::Ask => {
                        let admits = nginx.admits(now, settings);
                        prop_assert_eq!(health.admits(key(OWNER, 1), now, settings), admits);
                        open += u32::from(admits);
                    }
                    // Requests end in any order: of those that are open, each could be the one.
                    Event::Fail if open > 0 => {
                        nginx.free(now, true);
                        health.failed(key(OWNER, 1), now, settings);
                        open -= 1;
                    }
                    Event::Answer if open > 0 => {
                        nginx.free(now, false);
                        health.answered(key(OWNER, 1));
                        open -= 1;
                    }
                    Event::Fail | Event::Answer => {}
                }
            }
        }
    }
}
