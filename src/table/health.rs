//! Passive health checks, shared by all workers, with the meaning of nginx's own `max_fails` and `fail_timeout`.
//!
//! An entry belongs to a record, a scheme and an address: one tenant's failures at an address do not affect another tenant.
//! Editing a route keeps its entries. Only routes with several backends use them.
//!
//! # Isolation of tenants
//! All entries of a record lie in its window, a few adjacent lines chosen by the table's keyed hash, which tenants cannot
//! predict. In a full line, the record with most entries loses its oldest one. So an entry is evicted early only while at least
//! [`PER_LINE`] other records have failing backends in the same line: with a zone of 16m (1,024 lines, windows of 16) that takes
//! some 250 records with 64 constantly failing backends each. An evicted entry means that one backend is tried once too early.
//!
//! # Atomicity
//! An entry's state includes some bits of its key and is changed only by [`AtomicU64::compare_exchange`]: a worker never applies
//! a former key's state to the present one, and only one of several workers gets the probe.

use std::net::SocketAddr;
use std::time::Duration;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::route::{Scheme, draw_for_addr};

/// Entries per line.
const PER_LINE: usize = 4;
/// Most lines in a window.
const WINDOW: usize = 16;
/// Fewest windows in a table.
const WINDOWS: usize = 32;
/// Attempts at a compare-and-exchange that other workers keep losing for this one.
const TRIES: usize = 8;

/// When a backend is unavailable, as nginx documents its `server` parameters of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Failures that make a backend unavailable; 0 disables the check.
    pub max_fails: u16,
    /// How long the backend then stays unavailable, before one request probes it.
    pub fail_timeout: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { max_fails: 1, fail_timeout: Duration::from_secs(10) }
    }
}

/// Whether requests go to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Requests go there.
    Up,
    /// Too many requests have failed.
    Unavailable {
        /// When the next request probes it, in seconds of the caller's clock. A past time: the next request does.
        until: u32,
    },
}

/// A line of four entries.
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

/// Identifies a backend of a record.
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

    /// Half of the owner's hash; the other half has chosen the window.
    fn word(self) -> u64 {
        self.owner << 32 | self.backend >> 32
    }
}

/// `checked 32 | tag 15 | probed 1 | fails 16`, from the highest bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Time of the last failure or probe.
    checked: u32,
    /// Of the key's hash.
    tag: u16,
    /// Whether `checked` is the time of a probe, thus after the last failure; `accessed < checked` in nginx.
    probed: bool,
    /// Failures since the last successful probe.
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

    fn is_unavailable(self, settings: HealthSettings) -> bool {
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

    /// Whether a request may go to the backend at `now` (seconds of a clock that all workers share). After `fail_timeout` the
    /// first caller gets the probe of an unavailable backend, and no other for another `fail_timeout`: call this only for a
    /// request that will use the backend.
    pub fn admits(self, key: HealthKey, now: u32, settings: HealthSettings) -> bool {
        let Some(entry) = self.find(key) else { return true };
        for _ in 0..TRIES {
            let word = entry.state.load(Relaxed);
            let state = State::of(word);
            if state.fails == 0 || state.tag != key.tag() {
                return true;
            }
            if !state.is_due(now, settings) {
                return !state.is_unavailable(settings);
            }
            let probed = State { checked: now, probed: true, ..state };
            if entry.state.compare_exchange(word, probed.word(), Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        false
    }

    /// The state of a backend, without taking its probe as [`Self::admits`] may.
    pub fn availability(self, key: HealthKey, settings: HealthSettings) -> Availability {
        let state = self.find(key).map(|entry| State::of(entry.state.load(Relaxed)));
        let is_unavailable = |state: &State| state.tag == key.tag() && state.is_unavailable(settings);
        state.filter(is_unavailable).map_or(Availability::Up, |state| Availability::Unavailable {
            until: state.checked.saturating_add(settings.fail_timeout.as_secs() as u32).saturating_add(1),
        })
    }

    /// Counts a failure; returns whether the backend is unavailable now.
    pub fn failed(self, key: HealthKey, now: u32, settings: HealthSettings) -> bool {
        let Some(entry) = self.find(key).or_else(|| self.allocate(key)) else { return false };
        for _ in 0..TRIES {
            let word = entry.state.load(Relaxed);
            let state = State::of(word);
            let before = if state.tag == key.tag() { state.fails } else { 0 };
            let failed = State { checked: now, tag: key.tag(), probed: false, fails: before.saturating_add(1) };
            if entry.state.compare_exchange(word, failed.word(), Relaxed, Relaxed).is_ok() {
                return failed.is_unavailable(settings);
            }
        }
        // Other workers have changed the line at each try.
        false
    }

    /// The backend has answered. Clears its failures if this was a probe; answers to older requests prove nothing.
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

    /// The key's line within its owner's window.
    fn line(self, key: HealthKey) -> &'a [Entry] {
        let window = (self.lines.len() / WINDOWS).clamp(1, WINDOW);
        let first = scale(key.owner, self.lines.len());
        let at = (first + scale(key.backend << 32, window)) % self.lines.len().max(1);
        self.lines.get(at).map_or(&[], |line| &line.0)
    }

    fn find(self, key: HealthKey) -> Option<&'a Entry> {
        self.line(key).iter().find(|entry| entry.key.load(Relaxed) == key.word())
    }

    /// Takes a free entry, or evicts one of the record with most entries in the line. `None` if another worker was faster.
    fn allocate(self, key: HealthKey) -> Option<&'a Entry> {
        let seen = |entry: &'a Entry| (entry, entry.key.load(Relaxed), State::of(entry.state.load(Relaxed)));
        let line = self.line(key).iter().map(seen);
        let owner = |word: u64| word >> 32;
        let taken = |word: u64| {
            let others = line.clone().filter(|(_, other, state)| state.fails > 0 && owner(*other) == owner(word));
            others.count() + usize::from(owner(word) == owner(key.word()))
        };
        // Free entries first, then those of the largest owner, then the oldest.
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

/// Scales a hash to a number below `count`, by its high bits.
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
    fn an_unavailable_backend_gets_one_request_per_fail_timeout() {
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
    fn availability_says_when_the_next_probe_is_due() {
        let lines = lines(1);
        let health = Health::new(&lines);
        let availability = |settings| health.availability(key(OWNER, 1), settings);
        assert_eq!(availability(SETTINGS), Availability::Up);
        health.failed(key(OWNER, 1), 100, SETTINGS);
        assert_eq!(availability(SETTINGS), Availability::Up, "one failure of two");
        health.failed(key(OWNER, 1), 105, SETTINGS);
        assert_eq!(availability(SETTINGS), Availability::Unavailable { until: 116 });
        assert!(!health.admits(key(OWNER, 1), 115, SETTINGS) && health.admits(key(OWNER, 1), 116, SETTINGS));
        assert_eq!(availability(SETTINGS), Availability::Unavailable { until: 127 }, "after the probe");
        health.answered(key(OWNER, 1));
        assert_eq!(availability(SETTINGS), Availability::Up);
    }

    #[test]
    fn only_a_successful_probe_readmits() {
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
    fn records_and_schemes_are_independent() {
        let lines = lines(1);
        let health = Health::new(&lines);
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        assert!(health.failed(HealthKey::new(OWNER, Scheme::Https, addr), 100, ONCE));
        assert!(health.admits(HealthKey::new(OWNER, Scheme::Http, addr), 100, ONCE));
        assert!(health.admits(HealthKey::new(OWNER + 1, Scheme::Https, addr), 100, ONCE));
        assert!(!health.admits(HealthKey::new(OWNER, Scheme::Https, addr), 100, ONCE));
    }

    #[test]
    fn zero_max_fails_disables_the_check() {
        let lines = lines(1);
        let never = HealthSettings { max_fails: 0, ..SETTINGS };
        assert!(!Health::new(&lines).failed(key(1, 1), 1, never) && Health::new(&lines).admits(key(1, 1), 1, never));
    }

    #[test]
    fn a_full_line_evicts_from_the_record_with_most_entries() {
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
        assert_eq!(kept.collect::<Vec<_>>(), [62, 63, 64], "its own oldest were evicted");
    }

    #[test]
    fn evictions_by_one_record_are_bounded_by_its_window() {
        let lines = lines(1024);
        let health = Health::new(&lines);
        let victims: Vec<_> = (0..500u64).map(|n| key(crate::route::key_hash(&n.to_le_bytes()), 1)).collect();
        assert!(victims.iter().all(|&victim| health.failed(victim, 100, ONCE)));
        // As many records as one project may have domains, each with the most backends.
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
    fn eight_backends_per_record_are_all_remembered() {
        let lines = lines(1024);
        for owner in (0..100u64).map(|n| crate::route::key_hash(&n.to_le_bytes())) {
            let health = Health::new(&lines);
            (1..=8).for_each(|port| assert!(health.failed(key(owner, port), 100, ONCE)));
            assert!((1..=8).all(|port| !health.admits(key(owner, port), 101, ONCE)), "{owner:x}");
        }
    }

    #[test]
    fn only_one_worker_gets_the_probe() {
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
    fn states_round_trip() {
        let state = State { checked: u32::MAX - 1, tag: 0x7abc, probed: true, fails: 0xfedc };
        assert_eq!(State::of(state.word()), state);
        let state = State { checked: 1, tag: 0x1543, probed: false, fails: 1 };
        assert_eq!(State::of(state.word()), state);
    }

    /// `ngx_http_upstream_rr_peer_t` and its use by the round robin of nginx 1.22 to 1.28.
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
                    // Requests end in any order: any open request may be the one that ends.
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
