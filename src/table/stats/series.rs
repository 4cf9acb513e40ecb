//! The busiest tools and domains: request counts, durations and rates of each. A fixed number, whatever tenants do.
//!
//! The companion assigns the lines, see [`Ranking`](crate::table::Ranking); workers count in them. A request that ends while its tool's line is
//! reassigned may be counted for the tool's successor or not at all.

use super::histogram::{DurationHistogram, DurationWords};
use crate::route::Kind;
use crate::table::StatusClass;
use crate::table::atomic::{AtomicU64, Edge, Ordering::Relaxed, acquire, fence_acquire, fence_release, release};

const NAME_WORDS: usize = 9;
/// Longest name that is stored; a longer one is truncated.
pub const NAME_BYTES: usize = NAME_WORDS * 8;

/// Four lines for one tool or domain.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Series {
    label: Label,
    words: DurationWords,
    /// Requests, those with a 5xx status, and milliseconds of all requests, per 1,000 seconds.
    rate: AtomicU64,
    error_rate: AtomicU64,
    time_rate: AtomicU64,
}

/// The tool or domain of a line.
#[repr(C)]
#[derive(Debug)]
pub(in crate::table) struct Label {
    /// The owner of the counter line, see [`Counters`](crate::table::Counters); 0 while unused or being assigned.
    owner: AtomicU64,
    /// `counters 32 | unused 8 | kind 8 | is_truncated 8 | name length 8`.
    meta: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
}

/// The values of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesView {
    /// The number of the record's counters.
    pub counters: u32,
    /// [`Kind::Tool`] or [`Kind::Domain`].
    pub kind: Kind,
    name: [u8; NAME_BYTES],
    name_bytes: u8,
    /// Whether the name is only the beginning of the record's.
    pub is_truncated: bool,
    /// Requests since the line was assigned.
    pub requests: DurationHistogram,
    /// Requests per second, of late.
    pub rate: f64,
    /// Requests with a 5xx status per second, of late.
    pub error_rate: f64,
    /// Mean duration of late, in milliseconds; `None` without requests.
    pub mean_milliseconds: Option<f64>,
}

impl SeriesView {
    /// The name, or its beginning: whole characters if it is UTF-8.
    pub fn name(&self) -> &[u8] {
        self.name.get(..self.name_bytes.into()).unwrap_or_default()
    }
}

impl Series {
    pub(in crate::table) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { label: Label::new(), words: DurationWords::new(), rate: zero(), error_rate: zero(), time_rate: zero() }
    }

    /// Counts a finished request; `false` if the line belongs to another owner by now.
    #[inline]
    pub(in crate::table) fn add(&self, owner: u64, class: StatusClass, milliseconds: u64) -> bool {
        let is_owner = self.owner() == owner;
        if is_owner {
            self.words.add(class, milliseconds);
        }
        is_owner
    }

    /// The owner of the counter line; 0 while unused.
    pub(in crate::table) fn owner(&self) -> u64 {
        self.label.owner.load(Relaxed)
    }

    /// The number of the counter line.
    pub(in crate::table) fn counters(&self) -> u32 {
        (self.label.meta.load(Relaxed) >> 32) as u32
    }

    /// Assigns the line. Only for the one companion.
    pub(in crate::table) fn assign(&self, owner: u64, counters: u32, kind: Kind, name: &[u8]) {
        self.clear();
        self.words.reset();
        self.set_rates(0.0, 0.0, 0.0);
        self.label.assign(owner, counters, kind, name);
    }

    /// Empties the line. Only for the one companion.
    pub(in crate::table) fn clear(&self) {
        self.label.owner.store(0, Relaxed);
    }

    /// Records the current rates per second.
    pub(in crate::table) fn set_rates(&self, requests: f64, errors: f64, milliseconds: f64) {
        self.rate.store((requests * 1000.0).round() as u64, Relaxed);
        self.error_rate.store((errors * 1000.0).round() as u64, Relaxed);
        self.time_rate.store((milliseconds * 1000.0).round() as u64, Relaxed);
    }

    /// All values; `None` while the line is unused or being assigned.
    pub fn read(&self) -> Option<SeriesView> {
        let (owner, view) = self.label.read()?;
        let (rate, time_rate) = (self.rate.load(Relaxed), self.time_rate.load(Relaxed));
        let view = SeriesView {
            requests: self.words.read(),
            rate: rate as f64 / 1000.0,
            mean_milliseconds: (rate > 0).then(|| time_rate as f64 / rate as f64),
            error_rate: self.error_rate.load(Relaxed) as f64 / 1000.0,
            ..view
        };
        Some(view).filter(|_| self.owner() == owner)
    }
}

impl Label {
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { owner: zero(), meta: zero(), name: std::array::from_fn(|_| zero()) }
    }

    pub fn assign(&self, owner: u64, counters: u32, kind: Kind, name: &[u8]) {
        let shown = shorten(name);
        let is_truncated = shown.len() < name.len();
        self.owner.store(0, Relaxed);
        fence_release(Edge::E7);
        let meta = u64::from(counters) << 32 | (kind as u64) << 16 | u64::from(is_truncated) << 8 | shown.len() as u64;
        self.meta.store(meta, Relaxed);
        for (word, bytes) in self.name.iter().zip(shown.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(whole), Relaxed); // edge E7
        }
        self.owner.store(owner, release(Edge::E7));
    }

    /// The owner, and a view without figures; `None` while unused or being assigned.
    pub fn read(&self) -> Option<(u64, SeriesView)> {
        let owner = self.owner.load(acquire(Edge::E7));
        let meta = self.meta.load(Relaxed);
        let mut name = [0; NAME_BYTES];
        for (to, word) in name.as_chunks_mut().0.iter_mut().zip(&self.name) {
            *to = word.load(Relaxed).to_ne_bytes(); // edge E7
        }
        fence_acquire(Edge::E7);
        if owner == 0 || self.owner.load(Relaxed) != owner {
            return None;
        }
        let view = SeriesView {
            counters: (meta >> 32) as u32,
            kind: if (meta >> 16) as u8 == Kind::Domain as u8 { Kind::Domain } else { Kind::Tool },
            name,
            name_bytes: meta as u8,
            is_truncated: (meta >> 8) as u8 != 0,
            requests: DurationHistogram::default(),
            rate: 0.0,
            error_rate: 0.0,
            mean_milliseconds: None,
        };
        Some((owner, view))
    }
}

/// The beginning of a name that fits, without a part of a character.
fn shorten(name: &[u8]) -> &[u8] {
    let mut len = name.len().min(NAME_BYTES);
    while len > 0 && name.get(len).is_some_and(|byte| byte & 0xc0 == 0x80) {
        len -= 1;
    }
    name.get(..len).unwrap_or_default()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_for_its_owner_alone() {
        let series = Series::new();
        assert_eq!(series.read(), None);
        series.assign(7, 3, Kind::Tool, b"hello");
        assert!(series.add(7, StatusClass::Success, 3) && !series.add(8, StatusClass::Success, 3));
        series.set_rates(1.5, 0.25, 30.0);
        let view = series.read().unwrap();
        assert_eq!((view.counters, view.kind, view.name(), view.is_truncated), (3, Kind::Tool, &b"hello"[..], false));
        assert_eq!((view.requests.by_class, view.rate, view.error_rate), ([0, 1, 0, 0, 0], 1.5, 0.25));
        assert_eq!(view.mean_milliseconds, Some(20.0));
        series.assign(8, 4, Kind::Domain, b"a.org");
        let view = series.read().unwrap();
        assert_eq!((view.kind, view.requests, view.rate), (Kind::Domain, DurationHistogram::default(), 0.0));
        assert_eq!(view.mean_milliseconds, None);
        series.clear();
        assert_eq!(series.read(), None);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let series = Series::new();
        let name = format!("{}{}", "a".repeat(NAME_BYTES - 1), "\u{20ac}".repeat(10));
        series.assign(1, 0, Kind::Tool, name.as_bytes());
        let view = series.read().unwrap();
        assert_eq!((view.name(), view.is_truncated), (&name.as_bytes()[..NAME_BYTES - 1], true));
        series.assign(1, 0, Kind::Tool, &[b'a'; 72]);
        let view = series.read().unwrap();
        assert_eq!((view.name(), view.is_truncated), (&[b'a'; 72][..], false));
        // Not UTF-8: the loop ends.
        series.assign(1, 0, Kind::Tool, &[0x80; 200]);
        assert_eq!(series.read().unwrap().name(), b"");
    }
}
