//! The layout of a zone: how it is divided, and its 64-byte lines.

use super::atomic::{AtomicU64, Ordering::Relaxed};
use super::counters::Counters;
use super::health::HealthLine;
use super::stats::{Note, Question, Series, SourceState, WorkerStats};
use crate::route::Kind;

/// Marks a zone as ours, with the version of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"urlprx\x00\x06");
/// Bytes of every line.
pub(super) const LINE: usize = 64;
/// Words of every line.
pub(super) const WORDS: usize = LINE / 8;
/// Bytes before the encoded record: the stamp, then its length and the number of its counters.
pub(super) const PREFIX_BYTES: usize = 16;
/// Slots per bucket; its first word counts overflows. Two in a model, where buckets must fill quickly.
pub(super) const SLOTS: usize = if cfg!(loom) { 2 } else { WORDS - 1 };
/// Most buckets to probe from a key's home. Even a full table has no run of full buckets this long.
pub(super) const MAX_PROBES: usize = 64;
/// Most cells that a slot can address.
const MAX_CELLS: usize = 1 << super::slot::CELL_BITS;
/// Bytes planned for each tool: counters 64, index 16, and 112 for its record.
const BYTES_PER_TOOL: usize = 192;
/// Tools per bucket of 7 slots when the table is full.
const TOOLS_PER_BUCKET: usize = 4;
/// 1/128 of the zone is for [`Series`], 1/64 each for [`Note`]s, [`Question`]s and [`WorkerStats`], up to these numbers.
const MAX_SERIES: usize = 1024;
const MAX_NOTES: usize = 2048;
const MAX_QUESTIONS: usize = 8;
const MAX_WORKERS: usize = 64;
/// One record may take 1/1024 of the cells ...
const RECORD_SHARE: usize = 1024;
/// ... but at least this much, so that tools in a small zone can have some patterns ...
const MIN_RECORD_LIMIT: usize = 4 << 10;
/// ... and at most this much, however large the zone.
pub const MAX_RECORD_BYTES: usize = 64 << 10;
/// 1/16 of the cells is reserved for changes of existing records ...
const RESERVE_SHARE: usize = 16;
/// ... or the size of the largest record, if that is at most 1/4 of the cells.
const LARGEST_RESERVE_SHARE: usize = 4;

/// The first lines of a zone: the table's layout and state.
///
/// Times are Unix seconds. Only the writer writes, except where a field says otherwise.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    magic: AtomicU64,
    buckets: AtomicU64,
    cells: AtomicU64,
    tools: AtomicU64,
    health: AtomicU64,
    workers: AtomicU64,
    series: AtomicU64,
    notes: AtomicU64,
    questions: AtomicU64,
    pub(super) hash_key0: AtomicU64,
    pub(super) hash_key1: AtomicU64,
    /// The highest stamp ever used.
    pub(super) last_stamp: AtomicU64,
    /// Current number of records, by [`Kind`].
    pub(super) live: [AtomicU64; 3],
    /// Current number of routes of tools and domains.
    pub(super) live_routes: AtomicU64,
    /// Cells in use.
    pub(super) live_cells: AtomicU64,
    /// Where the routes came from, see [`LoadedFrom`]; 0 before the first load.
    pub(super) loaded: AtomicU64,
    /// When the last full scan of the source ended.
    pub(super) synced_at: AtomicU64,
    /// Currently rejected routes.
    pub(super) rejected: AtomicU64,
    /// Total of records refused because the table was full.
    pub(super) refused_full: AtomicU64,
    /// Total of contended lookups; counted by readers.
    pub(super) contended: AtomicU64,
    /// Total of slot stores: an unchanged number means an unchanged table.
    pub(super) changes: AtomicU64,
    /// Records that the source no longer has but the withdrawal guard holds.
    pub(super) held: AtomicU64,
    /// When the hold (re)started, in seconds of the monotonic clock; 0 if it must restart.
    pub(super) held_since: AtomicU64,
    /// A bit for each [`Kind`] that is completely loaded; written before `loaded`.
    pub(super) known: AtomicU64,
    /// When the hold first began, on the same clock, before any restart. Means nothing while nothing is held.
    pub(super) held_first: AtomicU64,
    /// Cells in the longest free run.
    pub(super) largest_run: AtomicU64,
    /// Total of changes without room, which withdrew the record.
    pub(super) displaced: AtomicU64,
    /// When the table was last in step with the source; stored at most once a second. No edge, see `proof.rs`.
    pub(super) in_step_at: AtomicU64,
}

/// Pings come twice a second and are recorded in whole seconds: an age of one second counts as zero.
const HEARTBEAT_SECONDS: u64 = 1;

/// Where a table's routes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedFrom {
    /// A full scan of the source.
    Source = 1,
    /// A snapshot; no scan has completed since.
    Snapshot = 2,
}

/// Eight words: an overflow count and seven slots.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Bucket {
    /// Number of keys with a home at or before this bucket that are stored after it.
    pub overflow: AtomicU64,
    pub slots: [AtomicU64; SLOTS],
}

/// Eight words of a record.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Cell(pub [AtomicU64; WORDS]);

const _: () = assert!(cfg!(loom) || size_of::<Header>() == 4 * LINE);
const _: () = assert!(cfg!(loom) || size_of::<Bucket>() == LINE);
const _: () = assert!(cfg!(loom) || size_of::<Cell>() == LINE);
const _: () = assert!(cfg!(loom) || size_of::<Counters>() == LINE);
const _: () = assert!(cfg!(loom) || size_of::<HealthLine>() == LINE);
const _: () = assert!(cfg!(loom) || size_of::<WorkerStats>() == 6 * LINE);
const _: () = assert!(cfg!(loom) || size_of::<Series>() == 4 * LINE);
const _: () = assert!(cfg!(loom) || size_of::<Note>() == 8 * LINE);
const _: () = assert!(cfg!(loom) || size_of::<Question>() == 32 * LINE);
const _: () = assert!(cfg!(loom) || size_of::<SourceState>().is_multiple_of(LINE));

/// How many lines of each kind a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Buckets of seven slots.
    pub buckets: usize,
    /// Cells of 64 bytes for records.
    pub cells: usize,
    /// Most records; each has a counter line.
    pub tools: usize,
    /// Lines of health state, four backends each.
    pub health: usize,
    /// Entries of [`WorkerStats`], a power of two.
    pub workers: usize,
    /// Tools and domains with their own statistics.
    pub series: usize,
    /// Notes of the companion.
    pub notes: usize,
    /// Questions to the companion.
    pub questions: usize,
}

/// Why memory cannot be used as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too few bytes.
    #[error("{0} bytes are too few for a route table")]
    TooSmall(usize),
    /// The zone of another program or version.
    #[error("the zone holds no route table of this version; restart nginx, or give the zone another size")]
    Foreign,
}

impl Capacity {
    /// No lines at all.
    pub const NONE: Self =
        Self { buckets: 0, cells: 0, tools: 0, health: 0, workers: 0, series: 0, notes: 0, questions: 0 };

    /// Divides `bytes` bytes: 1/256 for health state, at most 1/18 for statistics, the rest at 192 bytes per tool.
    ///
    /// # Errors
    /// [`LayoutError::TooSmall`] under 32 KiB.
    pub fn of_bytes(bytes: usize) -> Result<Self, LayoutError> {
        if bytes < 32 << 10 {
            return Err(LayoutError::TooSmall(bytes));
        }
        let health = (bytes / 256 / LINE).max(16);
        let workers = (bytes / 64 / size_of::<WorkerStats>()).clamp(1, MAX_WORKERS);
        let workers = 1 << workers.ilog2();
        let series = (bytes / 128 / size_of::<Series>()).min(MAX_SERIES);
        let notes = (bytes / 64 / size_of::<Note>()).min(MAX_NOTES);
        let questions = (bytes / 64 / size_of::<Question>()).min(MAX_QUESTIONS);
        let without = Self { health, workers, series, notes, questions, ..Self::NONE };
        let lines = bytes / LINE - without.lines();
        let tools = lines * LINE / BYTES_PER_TOOL;
        let buckets = tools.div_ceil(TOOLS_PER_BUCKET);
        let cells = (lines - tools - buckets).min(MAX_CELLS);
        Ok(Self { buckets, cells, tools, ..without })
    }

    /// Most bytes of one record (name, patterns, backends and automata): 1/1024 of the cells, at least 4 KiB, at most
    /// [`MAX_RECORD_BYTES`].
    pub fn record_limit(&self) -> usize {
        (self.cells * LINE / RECORD_SHARE).clamp(MIN_RECORD_LIMIT, MAX_RECORD_BYTES)
    }

    /// Cells reserved for changes of existing records, so that a tool can move in a full table: 1/16, at least the size of the
    /// largest record.
    pub fn reserve_cells(&self) -> usize {
        let largest = (PREFIX_BYTES + self.record_limit()).div_ceil(LINE);
        (self.cells / RESERVE_SHARE).max(largest).min(self.cells / LARGEST_RESERVE_SHARE)
    }

    /// Size in lines. Saturates: a damaged header may have any numbers.
    pub(super) fn lines(&self) -> usize {
        let statistics = [
            (self.workers, size_of::<WorkerStats>()),
            (self.series, size_of::<Series>()),
            (self.notes, size_of::<Note>()),
            (self.questions, size_of::<Question>()),
        ];
        let fixed = (size_of::<Header>() + size_of::<SourceState>()) / LINE;
        let lines = statistics.map(|(count, bytes)| count.saturating_mul(bytes / LINE)).into_iter();
        lines.chain([self.buckets, self.cells, self.tools, self.health]).fold(fixed, usize::saturating_add)
    }
}

impl Header {
    /// A zeroed header.
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            magic: zero(),
            buckets: zero(),
            cells: zero(),
            tools: zero(),
            health: zero(),
            workers: zero(),
            series: zero(),
            notes: zero(),
            questions: zero(),
            hash_key0: zero(),
            hash_key1: zero(),
            last_stamp: zero(),
            live: std::array::from_fn(|_| zero()),
            live_routes: zero(),
            live_cells: zero(),
            loaded: zero(),
            synced_at: zero(),
            rejected: zero(),
            refused_full: zero(),
            contended: zero(),
            changes: zero(),
            held: zero(),
            held_since: zero(),
            known: zero(),
            held_first: zero(),
            largest_run: zero(),
            displaced: zero(),
            in_step_at: zero(),
        }
    }

    /// Formats a zeroed zone; the magic word is stored last.
    pub(super) fn format(&self, capacity: Capacity, key: [u64; 2]) {
        self.buckets.store(capacity.buckets as u64, Relaxed);
        self.cells.store(capacity.cells as u64, Relaxed);
        self.tools.store(capacity.tools as u64, Relaxed);
        self.health.store(capacity.health as u64, Relaxed);
        self.workers.store(capacity.workers as u64, Relaxed);
        self.series.store(capacity.series as u64, Relaxed);
        self.notes.store(capacity.notes as u64, Relaxed);
        self.questions.store(capacity.questions as u64, Relaxed);
        self.hash_key0.store(key[0], Relaxed);
        self.hash_key1.store(key[1], Relaxed);
        self.magic.store(MAGIC, super::atomic::Ordering::Release);
    }

    /// The capacity of a formatted zone.
    #[cfg(not(loom))]
    pub(super) fn capacity(&self) -> Result<Capacity, LayoutError> {
        if self.magic.load(super::atomic::Ordering::Acquire) != MAGIC {
            return Err(LayoutError::Foreign);
        }
        Ok(self.lines())
    }

    fn lines(&self) -> Capacity {
        let word = |w: &AtomicU64| w.load(Relaxed) as usize;
        Capacity {
            buckets: word(&self.buckets),
            cells: word(&self.cells),
            tools: word(&self.tools),
            health: word(&self.health),
            workers: word(&self.workers),
            series: word(&self.series),
            notes: word(&self.notes),
            questions: word(&self.questions),
        }
    }

    /// Whether the table was ever loaded completely. Before that, a missing key means nothing.
    pub fn is_loaded(&self) -> bool {
        self.loaded_from().is_some()
    }

    /// Whether all records of a kind are loaded. If not, a missing key of that kind means nothing.
    pub fn knows(&self, kind: Kind) -> bool {
        self.is_loaded() && self.known.load(Relaxed) & 1 << kind as u64 != 0
    }

    /// The completely loaded kinds.
    pub fn known(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|&kind| self.knows(kind)).collect()
    }

    /// Where the routes came from; the source, once a scan of it has completed.
    pub fn loaded_from(&self) -> Option<LoadedFrom> {
        match self.loaded.load(super::atomic::acquire(super::atomic::Edge::E5)) {
            0 => None,
            2 => Some(LoadedFrom::Snapshot),
            _ => Some(LoadedFrom::Source),
        }
    }

    /// Current number of records of a kind.
    pub fn live(&self, kind: Kind) -> u64 {
        self.live.get(kind as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Current number of tools.
    pub fn live_tools(&self) -> u64 {
        self.live(Kind::Tool)
    }

    /// Current number of routes of tools and domains.
    pub fn live_routes(&self) -> u64 {
        self.live_routes.load(Relaxed)
    }

    /// Bytes in use by records.
    pub fn live_bytes(&self) -> u64 {
        self.live_cells.load(Relaxed) * LINE as u64
    }

    /// Free bytes, including the reserve.
    pub fn free_bytes(&self) -> u64 {
        // The first cell is never used.
        let cells = self.cells.load(Relaxed).saturating_sub(1);
        cells.saturating_sub(self.live_cells.load(Relaxed)) * LINE as u64
    }

    /// Bytes of the longest free run: a larger record fits only with the cells of the record that it replaces.
    pub fn largest_free_bytes(&self) -> u64 {
        self.largest_run.load(Relaxed) * LINE as u64
    }

    /// Bytes reserved for changes of existing records.
    pub fn reserve_bytes(&self) -> u64 {
        (self.lines().reserve_cells() * LINE) as u64
    }

    /// When the last full scan of the source ended, in Unix seconds; 0 for never. For routes from a snapshot: the last scan
    /// before that was written.
    pub fn synced_at(&self) -> u64 {
        self.synced_at.load(Relaxed)
    }

    /// Seconds between the time when the table was last in step with the source and `now` (Unix seconds): 0 while the source
    /// answers pings; the snapshot's age for routes from a snapshot. Held routes do not age a table. `None` before the first
    /// load.
    pub fn age_seconds(&self, now: u64) -> Option<u64> {
        let at = Some(self.in_step_at.load(Relaxed)).filter(|&at| at > 0)?;
        // After the clock was set back, the next ping corrects this; without pings the age is unknown, thus not 0.
        Some(now.abs_diff(at)).map(|age| if age <= HEARTBEAT_SECONDS { 0 } else { age })
    }

    /// Number of currently rejected routes.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Total of records refused because the table was full: new ones, and those that [`Self::displaced`] counts.
    pub fn refused_full(&self) -> u64 {
        self.refused_full.load(Relaxed)
    }

    /// Total of changes without room. The outdated record was withdrawn.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Relaxed)
    }

    /// Total of records published or withdrawn.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Number of held records: missing from the source, still in service.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// When the hold (re)started, in seconds of the monotonic clock; `None` if it must restart.
    pub fn held_since(&self) -> Option<u64> {
        Some(self.held_since.load(Relaxed)).filter(|&since| self.held() > 0 && since > 0)
    }

    /// When the hold first began, on the same clock; earlier than [`held_since`](Self::held_since) after a restart.
    pub fn held_first(&self) -> Option<u64> {
        Some(self.held_first.load(Relaxed)).filter(|&first| self.held() > 0 && first > 0).or_else(|| self.held_since())
    }

    /// Total of lookups that gave up because the record kept changing.
    pub fn contended(&self) -> u64 {
        self.contended.load(Relaxed)
    }
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self { overflow: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Cell {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_used_completely_and_not_exceeded() {
        for bytes in [32 << 10, 1 << 20, 16 << 20, 192 << 20, (1 << 20) + 13] {
            let capacity = Capacity::of_bytes(bytes).unwrap();
            assert!(capacity.lines() * LINE <= bytes, "{bytes}: {capacity:?}");
            assert!(capacity.lines() * LINE + 3 * LINE > bytes, "{bytes}: {capacity:?}");
        }
        assert_eq!(Capacity::of_bytes(32767), Err(LayoutError::TooSmall(32767)));
    }

    #[test]
    fn record_limit_and_reserve_follow_from_the_zone() {
        for (bytes, limit, reserve) in [
            (32 << 10, 4 << 10, 65),
            (1 << 20, 4 << 10, 564),
            (16 << 20, 9272, 9272),
            (64 << 20, 37_309, 37_309),
            (1 << 30, MAX_RECORD_BYTES, 608_509),
        ] {
            let capacity = Capacity::of_bytes(bytes).unwrap();
            assert_eq!(capacity.record_limit(), limit, "{bytes}");
            assert_eq!(capacity.reserve_cells(), reserve, "{bytes}: {capacity:?}");
            assert!(reserve * LINE >= limit && reserve * 4 <= capacity.cells, "{bytes}: {capacity:?}");
        }
    }

    #[test]
    fn sizes_of_a_damaged_header_do_not_overflow() {
        // Each makes the number of lines wrap around to a small one.
        for wrong in [
            Capacity { workers: usize::MAX / size_of::<WorkerStats>() + 1, ..Capacity::NONE },
            Capacity { questions: 1 << (usize::BITS - 11), ..Capacity::NONE },
            Capacity { buckets: usize::MAX, cells: 1, ..Capacity::NONE },
        ] {
            assert!(wrong.lines() > usize::MAX / LINE / 2, "{wrong:?}");
        }
    }

    #[test]
    fn sixteen_mebibytes_hold_80_000_tools() {
        assert!(Capacity::of_bytes(16 << 20).unwrap().tools > 80_000);
    }
}
