//! The companion's account of itself. Only the companion writes it.

use std::time::Duration;

use crate::table::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the propagation histogram, in microseconds; one more bucket has no bound.
pub const PROPAGATION_BOUNDS_MICROSECONDS: [u64; 11] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000, 30_000_000];
const BUCKETS: usize = PROPAGATION_BOUNDS_MICROSECONDS.len() + 1;

/// Labels of the reasons why routes are rejected.
pub const REASONS: [&str; 13] = [
    "name",
    "pattern",
    "backend",
    "not_allowed",
    "not_utf8",
    "too_many",
    "no_share",
    "too_costly",
    "waiting",
    "too_large",
    "wrong_type",
    "no_room",
    "hidden",
];

/// Why the whole source was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncCause {
    /// A new connection.
    Connect = 0,
    /// `resync_interval` has passed.
    Interval = 1,
    /// The source was flushed.
    Flush = 2,
    /// A hold of the withdrawal guard has ended.
    Guard = 3,
}

impl ResyncCause {
    /// All causes, by their number.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Interval, Self::Flush, Self::Guard];

    /// The cause's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Interval => "interval",
            Self::Flush => "flush",
            Self::Guard => "guard",
        }
    }
}

/// The state of the snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Written at this time, in Unix milliseconds.
    Written(u64),
    /// The last attempt failed.
    Failed,
}

/// Times are Unix milliseconds; 0 for never.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SourceState {
    is_connected: AtomicU64,
    /// When the connection was made or lost.
    since: AtomicU64,
    last_push: AtomicU64,
    last_resync: AtomicU64,
    last_change: AtomicU64,
    /// Number of the latest [`Change`](super::Change).
    changes: AtomicU64,
    /// Attempts to follow the source that failed.
    failures: AtomicU64,
    resyncs: [AtomicU64; ResyncCause::ALL.len()],
    snapshot_written: AtomicU64,
    has_snapshot_failed: AtomicU64,
    rejected: [AtomicU64; REASONS.len()],
    propagation: [AtomicU64; BUCKETS],
    propagation_microseconds: AtomicU64,
}

/// The values, not read atomically as a whole. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceView {
    /// Whether the source is being followed.
    pub is_connected: bool,
    /// Since when it is, or is not.
    pub since: Option<u64>,
    /// When the source last reported changed keys.
    pub last_push: Option<u64>,
    /// When the last full scan ended.
    pub last_resync: Option<u64>,
    /// When a record last changed.
    pub last_change: Option<u64>,
    /// The number of the latest change.
    pub changes: u64,
    /// Total of attempts to follow the source that failed.
    pub failures: u64,
    /// Total of full scans, by [`ResyncCause`].
    pub resyncs: [u64; ResyncCause::ALL.len()],
    /// When the snapshot was last written.
    pub snapshot_written: Option<u64>,
    /// Whether the last attempt to write it failed.
    pub has_snapshot_failed: bool,
    /// Current number of rejected routes, by [`REASONS`].
    pub rejected: [u64; REASONS.len()],
    /// Changed keys by the time from their push to their record, each in one bucket.
    pub propagation: [u64; BUCKETS],
    /// Sum of these times.
    pub propagation_microseconds: u64,
}

impl SourceState {
    pub(in crate::table) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            is_connected: zero(),
            since: zero(),
            last_push: zero(),
            last_resync: zero(),
            last_change: zero(),
            changes: zero(),
            failures: zero(),
            resyncs: std::array::from_fn(|_| zero()),
            snapshot_written: zero(),
            has_snapshot_failed: zero(),
            rejected: std::array::from_fn(|_| zero()),
            propagation: std::array::from_fn(|_| zero()),
            propagation_microseconds: zero(),
        }
    }

    /// Records that the source is followed, or no longer.
    pub fn set_connected(&self, is_connected: bool, now: u64) {
        let was_connected = self.is_connected.load(Relaxed) != 0;
        if was_connected != is_connected || self.since.load(Relaxed) == 0 {
            self.is_connected.store(is_connected.into(), Relaxed);
            self.since.store(now, Relaxed);
        }
    }

    /// Counts a failed attempt to follow the source.
    pub fn note_failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Counts a full scan that has ended.
    pub fn note_resync(&self, cause: ResyncCause, now: u64) {
        self.last_resync.store(now, Relaxed);
        if let Some(count) = self.resyncs.get(cause as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts keys that were pushed and are in the table now, `time` after their push at the latest.
    pub fn note_propagated(&self, keys: u64, time: Duration, now: u64) {
        self.last_push.store(now, Relaxed);
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = PROPAGATION_BOUNDS_MICROSECONDS.iter().take_while(|&&bound| microseconds > bound).count();
        if let Some(count) = self.propagation.get(bucket) {
            count.fetch_add(keys, Relaxed);
        }
        self.propagation_microseconds.fetch_add(microseconds.saturating_mul(keys), Relaxed);
    }

    /// The number for the next change, which happens now.
    pub fn next_change(&self, now: u64) -> u64 {
        self.last_change.store(now, Relaxed);
        self.changes.load(Relaxed) + 1
    }

    /// Publishes the number of the latest change, after its note.
    pub fn set_changes(&self, number: u64) {
        self.changes.store(number, Relaxed);
    }

    /// Records the number of rejected routes by [`REASONS`].
    pub fn set_rejected(&self, rejected: [u64; REASONS.len()]) {
        self.rejected.iter().zip(rejected).for_each(|(word, count)| word.store(count, Relaxed));
    }

    /// Records the outcome of writing the snapshot.
    pub fn set_snapshot(&self, state: SnapshotState) {
        if let SnapshotState::Written(at) = state {
            self.snapshot_written.store(at, Relaxed);
        }
        self.has_snapshot_failed.store((state == SnapshotState::Failed).into(), Relaxed);
    }

    /// All values.
    pub fn read(&self) -> SourceView {
        let time = |word: &AtomicU64| Some(word.load(Relaxed)).filter(|&at| at > 0);
        SourceView {
            is_connected: self.is_connected.load(Relaxed) != 0,
            since: time(&self.since),
            last_push: time(&self.last_push),
            last_resync: time(&self.last_resync),
            last_change: time(&self.last_change),
            changes: self.changes.load(Relaxed),
            failures: self.failures.load(Relaxed),
            resyncs: self.resyncs.each_ref().map(|word| word.load(Relaxed)),
            snapshot_written: time(&self.snapshot_written),
            has_snapshot_failed: self.has_snapshot_failed.load(Relaxed) != 0,
            rejected: self.rejected.each_ref().map(|word| word.load(Relaxed)),
            propagation: self.propagation.each_ref().map(|word| word.load(Relaxed)),
            propagation_microseconds: self.propagation_microseconds.load(Relaxed),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_the_time_of_its_last_change() {
        let state = SourceState::new();
        assert_eq!(state.read(), SourceView::default());
        for (is_connected, now, want) in [
            (false, 10, (false, 10)),
            (false, 20, (false, 10)),
            (true, 30, (true, 30)),
            (true, 40, (true, 30)),
            (false, 50, (false, 50)),
        ] {
            state.set_connected(is_connected, now);
            let view = state.read();
            assert_eq!((view.is_connected, view.since), (want.0, Some(want.1)), "{now}");
        }
    }

    #[test]
    fn a_propagation_time_belongs_to_the_bucket_of_its_bound() {
        let state = SourceState::new();
        for (keys, microseconds) in [(1, 0), (2, 250), (3, 251), (4, 30_000_000), (5, 30_000_001)] {
            state.note_propagated(keys, Duration::from_micros(microseconds), 7);
        }
        let view = state.read();
        assert_eq!(view.propagation, [3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 5]);
        assert_eq!(view.propagation_microseconds, 2 * 250 + 3 * 251 + 4 * 30_000_000 + 5 * 30_000_001);
        assert_eq!(view.last_push, Some(7));
    }

    #[test]
    fn events_are_counted_and_have_their_time() {
        let state = SourceState::new();
        state.note_failure();
        state.note_failure();
        for (cause, now) in [(ResyncCause::Flush, 1), (ResyncCause::Guard, 2), (ResyncCause::Flush, 3)] {
            state.note_resync(cause, now);
        }
        assert_eq!(state.next_change(4), 1);
        assert_eq!(state.next_change(5), 1, "the first is not published yet");
        state.set_changes(1);
        assert_eq!(state.next_change(6), 2);
        let mut rejected = [0; REASONS.len()];
        rejected[3] = 8;
        state.set_rejected(rejected);
        let view = state.read();
        assert_eq!((view.failures, view.resyncs, view.last_resync), (2, [0, 0, 2, 1], Some(3)));
        assert_eq!((view.changes, view.last_change, view.rejected), (1, Some(6), rejected));
        let labels = ResyncCause::ALL.map(ResyncCause::as_str);
        assert_eq!(labels, ["connect", "interval", "flush", "guard"]);
    }

    #[test]
    fn a_failed_snapshot_keeps_the_time_of_the_last_one() {
        let state = SourceState::new();
        let snapshot = || (state.read().snapshot_written, state.read().has_snapshot_failed);
        for (outcome, want) in [
            (SnapshotState::Failed, (None, true)),
            (SnapshotState::Written(5), (Some(5), false)),
            (SnapshotState::Failed, (Some(5), true)),
        ] {
            state.set_snapshot(outcome);
            assert_eq!(snapshot(), want);
        }
    }
}
