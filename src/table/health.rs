//! Which backends failed lately: shared by all workers, kept by endpoint, so that an edited route changes nothing.
//!
//! Only routes with several backends ask. An entry is found by the hash of the address among four of its line; a
//! line's oldest entry makes room for a fifth. Losing an entry means that one backend is tried again too early.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::atomic::{AtomicU64, Ordering::Relaxed};

const PER_LINE: usize = 4;
const FAILS_BITS: u32 = 16;

/// When a backend counts as failed, as nginx's `server` parameters of these names document it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Failures within `fail_timeout` that take a backend out; 0 never does.
    pub max_fails: u16,
    /// For how long failures are counted, and for how long the backend then stays out.
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
    /// Hash of the address, 0 when free.
    endpoint: AtomicU64,
    /// `seconds 48 | fails 16`: the last failure, and how many there were.
    state: AtomicU64,
}

impl HealthLine {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self(std::array::from_fn(|_| Entry { endpoint: zero(), state: zero() }))
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

    /// Whether the backend is out at `now` (seconds of a clock all workers share).
    pub fn is_failed(self, backend: SocketAddr, now: u64, settings: HealthSettings) -> bool {
        let endpoint = hash(backend);
        self.entries(endpoint).iter().any(|entry| {
            let (at, fails) = split(entry.state.load(Relaxed));
            entry.endpoint.load(Relaxed) == endpoint
                && settings.max_fails > 0
                && fails >= settings.max_fails
                && now.saturating_sub(at) <= settings.fail_timeout.as_secs()
        })
    }

    /// Counts a failure; `true` when it took the backend out.
    pub fn failed(self, backend: SocketAddr, now: u64, settings: HealthSettings) -> bool {
        let endpoint = hash(backend);
        let Some(entry) = self.claim(endpoint) else { return false };
        let state = entry.state.load(Relaxed);
        let (at, fails) = split(state);
        let fresh = now.saturating_sub(at) <= settings.fail_timeout.as_secs();
        let fails = if fresh { fails.saturating_add(1) } else { 1 };
        // Two workers at once: one failure more or less decides nothing.
        let _ = entry.state.compare_exchange(state, join(now, fails), Relaxed, Relaxed);
        settings.max_fails > 0 && fails >= settings.max_fails
    }

    /// Forgets a backend's failures: it answered.
    pub fn answered(self, backend: SocketAddr) {
        let endpoint = hash(backend);
        for entry in self.entries(endpoint) {
            if entry.endpoint.load(Relaxed) == endpoint && entry.state.load(Relaxed) != 0 {
                entry.state.store(0, Relaxed);
            }
        }
    }

    fn entries(self, endpoint: u64) -> &'a [Entry] {
        let at = ((endpoint >> 32) * self.lines.len() as u64) >> 32;
        self.lines.get(at as usize).map_or(&[], |line| &line.0)
    }

    /// The endpoint's entry, or the free or longest untouched one, made its own.
    fn claim(self, endpoint: u64) -> Option<&'a Entry> {
        let entries = self.entries(endpoint);
        if let Some(entry) = entries.iter().find(|e| e.endpoint.load(Relaxed) == endpoint) {
            return Some(entry);
        }
        let entry = entries.iter().min_by_key(|e| e.state.load(Relaxed))?;
        entry.state.store(0, Relaxed);
        entry.endpoint.store(endpoint, Relaxed);
        Some(entry)
    }
}

fn split(state: u64) -> (u64, u16) {
    (state >> FAILS_BITS, state as u16)
}

fn join(seconds: u64, fails: u16) -> u64 {
    seconds << FAILS_BITS | u64::from(fails)
}

/// Addresses are not chosen by name, and a collision only tries a backend too late or too early: no key needed.
fn hash(backend: SocketAddr) -> u64 {
    let mut hasher = SipHasher13::new();
    match backend.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write_u16(backend.port());
    hasher.finish().max(1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SETTINGS: HealthSettings = HealthSettings { max_fails: 2, fail_timeout: Duration::from_secs(10) };

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn max_fails_within_fail_timeout_take_a_backend_out_until_it_is_over() {
        let lines = [HealthLine::new()];
        let health = Health::new(&lines);
        assert!(!health.failed(addr(1), 100, SETTINGS));
        assert!(!health.is_failed(addr(1), 100, SETTINGS));
        assert!(health.failed(addr(1), 105, SETTINGS));
        assert!(health.is_failed(addr(1), 115, SETTINGS) && !health.is_failed(addr(2), 115, SETTINGS));
        assert!(!health.is_failed(addr(1), 116, SETTINGS));
    }

    #[test]
    fn failures_far_apart_do_not_add_up_and_an_answer_clears_them() {
        let lines = [HealthLine::new()];
        let health = Health::new(&lines);
        assert!(!health.failed(addr(1), 100, SETTINGS));
        assert!(!health.failed(addr(1), 111, SETTINGS));
        assert!(health.failed(addr(1), 112, SETTINGS));
        health.answered(addr(1));
        assert!(!health.is_failed(addr(1), 112, SETTINGS));
    }

    #[test]
    fn zero_max_fails_never_takes_out() {
        let lines = [HealthLine::new()];
        let never = HealthSettings { max_fails: 0, ..SETTINGS };
        assert!(!Health::new(&lines).failed(addr(1), 1, never) && !Health::new(&lines).is_failed(addr(1), 1, never));
    }

    #[test]
    fn a_full_line_forgets_the_oldest() {
        let lines = [HealthLine::new()];
        let health = Health::new(&lines);
        let once = HealthSettings { max_fails: 1, ..SETTINGS };
        for n in 1..=5 {
            assert!(health.failed(addr(n), 100 + u64::from(n), once));
        }
        let failed: Vec<_> = (1..=5).map(|n| health.is_failed(addr(n), 106, once)).collect();
        assert_eq!(failed, [false, true, true, true, true]);
    }
}
