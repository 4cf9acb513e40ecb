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

use std::cmp::Reverse;
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
            let others = line.clone().filter(|(_, other, _)| owner(*other) == owner(word));
            others.count() + usize::from(owner(word) == owner(key.word()))
        };
        // Free entries first, then those of the largest owner, then the oldest.
        let (entry, former, _) = line.clone().min_by_key(|(_, word, state)| match state.fails {
            0 => (false, Reverse(0), 0),
            _ => (true, Reverse(taken(*word)), state.checked),
        })?;
        entry.key.compare_exchange(former, key.word(), Relaxed, Relaxed).ok()?;
        Some(entry)
    }
}

impl HealthKey {
    fn tag(self) -> u16 {
        self.backend as u16 & State::TAG
    }
}

/// Scales a hash to a number below `count`, by its high bits.
fn scale(hash: u64, count: usize) -> usize {
    (((hash >> 32) * count as u64) >> 32) as usize
}

#[cfg(all(test, not(loom)))]
mod tests;
