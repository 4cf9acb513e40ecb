//! How a zone is divided, and the lines it is made of.

use super::atomic::{AtomicU64, Ordering::Relaxed};
use super::counters::Counters;
use super::health::HealthLine;
use crate::route::Kind;

/// "urlproxy" and the number of this layout; a zone with another word is not ours.
const MAGIC: u64 = u64::from_le_bytes(*b"urlprx\x00\x05");
/// Bytes of every line.
pub(super) const LINE: usize = 64;
/// Words of every line.
pub(super) const WORDS: usize = LINE / 8;
/// Bytes before the record proper: the stamp, then its length and the number of its counters.
pub(super) const PREFIX_BYTES: usize = 16;
/// Slots of a bucket; its first word counts overflows. Two in a model, where a bucket must soon be full.
pub(super) const SLOTS: usize = if cfg!(loom) { 2 } else { WORDS - 1 };
/// Buckets a key may be away from its home. At the highest load a run of this many full ones does not occur.
pub(super) const MAX_PROBES: usize = 64;
/// Cells a slot can name.
const MAX_CELLS: usize = 1 << super::slot::CELL_BITS;
/// Bytes planned for each tool: counters 64, index 16, and 112 for its record.
const BYTES_PER_TOOL: usize = 192;
/// Tools per bucket of 7 slots when the table is full.
const TOOLS_PER_BUCKET: usize = 4;
/// One record may take so much of the cells: one part in this many ...
const RECORD_SHARE: usize = 1024;
/// ... but no less than this: a tool of a small zone wants some patterns too ...
const MIN_RECORD_LIMIT: usize = 4 << 10;
/// ... and no more than this, however large the zone.
pub const MAX_RECORD_BYTES: usize = 64 << 10;
/// Of the cells, one part in this many is kept for changes of what is in the table ...
const RESERVE_SHARE: usize = 16;
/// ... or as much as the largest record takes, if that is no more than one part in this many.
const LARGEST_RESERVE_SHARE: usize = 4;

/// The first lines of a zone: what the table is, and what everybody may know of its state.
///
/// Times are Unix seconds. All words are written by the writer only, except where a field says otherwise.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    magic: AtomicU64,
    buckets: AtomicU64,
    cells: AtomicU64,
    tools: AtomicU64,
    health: AtomicU64,
    pub(super) hash_key0: AtomicU64,
    pub(super) hash_key1: AtomicU64,
    /// The highest stamp that was ever put on a record.
    pub(super) last_stamp: AtomicU64,
    /// Records in the table now, by [`Kind`].
    pub(super) live: [AtomicU64; 3],
    /// Cells that hold a record now.
    pub(super) live_cells: AtomicU64,
    /// Where the first complete set of routes came from, see [`LoadedFrom`]; 0 while there never was one.
    pub(super) loaded: AtomicU64,
    /// When the last complete comparison with the source ended.
    pub(super) synced_at: AtomicU64,
    /// Routes set aside in the source's present state.
    pub(super) rejected: AtomicU64,
    /// What the table had no room for, ever.
    pub(super) refused_full: AtomicU64,
    /// Lookups that gave up, ever; counted by readers.
    pub(super) contended: AtomicU64,
    /// Slots stored, ever: who kept the number knows whether anything has changed since.
    pub(super) changes: AtomicU64,
    /// Records of what the source no longer has, but whose withdrawal is held back.
    pub(super) held: AtomicU64,
    /// Since when, in seconds of the machine's monotonic clock; 0 when that must be counted anew.
    pub(super) held_since: AtomicU64,
    /// A bit for each [`Kind`] of which the table has all that there is; written before `loaded`.
    pub(super) known: AtomicU64,
    /// When the hold first began, by the same clock, however often it has begun anew; 0 while nothing is held.
    pub(super) held_first: AtomicU64,
    /// Cells in the longest free run.
    pub(super) largest_run: AtomicU64,
    /// Changes for which there was no room, so that the record is out, ever.
    pub(super) displaced: AtomicU64,
    /// When the table was last known to be in step with the source; stored at most once a second. No edge, see `proof.rs`.
    pub(super) in_step_at: AtomicU64,
}

/// The heartbeat comes twice a second and is booked in whole seconds: an age of one second is none.
const HEARTBEAT_SECONDS: u64 = 1;

/// Where the routes in a table were first taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedFrom {
    /// A complete comparison with the source.
    Source = 1,
    /// The snapshot of an earlier life; no comparison has ended since.
    Snapshot = 2,
}

/// Eight words: an overflow count and seven slots.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Bucket {
    /// How many keys with a home at or before this bucket live beyond it.
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

/// How many lines of each kind a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Buckets of seven slots.
    pub buckets: usize,
    /// Cells of 64 bytes for records.
    pub cells: usize,
    /// Most records: each has a line of counters.
    pub tools: usize,
    /// Lines of failure state, four backends each.
    pub health: usize,
}

/// Why memory can't be, or is not, a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too few bytes for even a handful of tools.
    #[error("{0} bytes are too few for a route table")]
    TooSmall(usize),
    /// Another program's zone, or another version's.
    #[error("the zone holds no route table of this version; restart nginx, or give the zone another size")]
    Foreign,
}

impl Capacity {
    /// The division of `bytes` bytes: one part of failure state in 256, the rest at 192 bytes per tool.
    ///
    /// # Errors
    /// [`LayoutError::TooSmall`] under 32 KiB.
    pub fn of_bytes(bytes: usize) -> Result<Self, LayoutError> {
        if bytes < 32 << 10 {
            return Err(LayoutError::TooSmall(bytes));
        }
        let health = (bytes / 256 / LINE).max(16);
        let lines = bytes / LINE - size_of::<Header>().div_ceil(LINE) - health;
        let tools = lines * LINE / BYTES_PER_TOOL;
        let buckets = tools.div_ceil(TOOLS_PER_BUCKET);
        let cells = (lines - tools - buckets).min(MAX_CELLS);
        Ok(Self { buckets, cells, tools, health })
    }

    /// Bytes that one record may take: a tool's names, patterns, backends and automata. One part in 1,024 of the cells, at
    /// least 4 KiB, at most [`MAX_RECORD_BYTES`].
    pub fn record_limit(&self) -> usize {
        (self.cells * LINE / RECORD_SHARE).clamp(MIN_RECORD_LIMIT, MAX_RECORD_BYTES)
    }

    /// Cells that only changes of what is in the table may take, so that a tool that moves finds room: one part in 16, at
    /// least what the largest record takes.
    pub fn reserve_cells(&self) -> usize {
        let largest = (PREFIX_BYTES + self.record_limit()).div_ceil(LINE);
        (self.cells / RESERVE_SHARE).max(largest).min(self.cells / LARGEST_RESERVE_SHARE)
    }

    /// Lines of memory that such a table takes.
    #[cfg(not(loom))]
    pub(super) fn lines(&self) -> usize {
        size_of::<Header>() / LINE + self.buckets + self.cells + self.tools + self.health
    }
}

impl Header {
    /// A header in memory of our own; all zero.
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            magic: zero(),
            buckets: zero(),
            cells: zero(),
            tools: zero(),
            health: zero(),
            hash_key0: zero(),
            hash_key1: zero(),
            last_stamp: zero(),
            live: std::array::from_fn(|_| zero()),
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

    /// Describes a zeroed zone; the magic word comes last.
    pub(super) fn format(&self, capacity: Capacity, key: [u64; 2]) {
        self.buckets.store(capacity.buckets as u64, Relaxed);
        self.cells.store(capacity.cells as u64, Relaxed);
        self.tools.store(capacity.tools as u64, Relaxed);
        self.health.store(capacity.health as u64, Relaxed);
        self.hash_key0.store(key[0], Relaxed);
        self.hash_key1.store(key[1], Relaxed);
        self.magic.store(MAGIC, super::atomic::Ordering::Release);
    }

    /// The division that a formatted zone was given.
    #[cfg(not(loom))]
    pub(super) fn capacity(&self) -> Result<Capacity, LayoutError> {
        if self.magic.load(super::atomic::Ordering::Acquire) != MAGIC {
            return Err(LayoutError::Foreign);
        }
        let word = |w: &AtomicU64| w.load(Relaxed) as usize;
        Ok(Capacity {
            buckets: word(&self.buckets),
            cells: word(&self.cells),
            tools: word(&self.tools),
            health: word(&self.health),
        })
    }

    /// Whether a complete set of routes was ever in the table: before that, ignorance must not look like absence.
    pub fn is_loaded(&self) -> bool {
        self.loaded_from().is_some()
    }

    /// Whether all records of a kind were ever in the table: without that, what is not there may only not be known.
    pub fn knows(&self, kind: Kind) -> bool {
        self.is_loaded() && self.known.load(Relaxed) & 1 << kind as u64 != 0
    }

    /// The kinds it knows.
    pub fn known(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|&kind| self.knows(kind)).collect()
    }

    /// Where the routes came from. After a comparison with the source that is the source.
    pub fn loaded_from(&self) -> Option<LoadedFrom> {
        match self.loaded.load(super::atomic::acquire(super::atomic::Edge::E5)) {
            0 => None,
            2 => Some(LoadedFrom::Snapshot),
            _ => Some(LoadedFrom::Source),
        }
    }

    /// Records of a kind in the table now.
    pub fn live(&self, kind: Kind) -> u64 {
        self.live.get(kind as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Tools in the table now.
    pub fn live_tools(&self) -> u64 {
        self.live(Kind::Tool)
    }

    /// Bytes that records take now.
    pub fn live_bytes(&self) -> u64 {
        self.live_cells.load(Relaxed) * LINE as u64
    }

    /// Bytes that no record takes, the reserve among them.
    pub fn free_bytes(&self) -> u64 {
        // The first cell is never used.
        let cells = self.cells.load(Relaxed).saturating_sub(1);
        cells.saturating_sub(self.live_cells.load(Relaxed)) * LINE as u64
    }

    /// Bytes of the longest free run: no longer record fits without the run of the one that it replaces.
    pub fn largest_free_bytes(&self) -> u64 {
        self.largest_run.load(Relaxed) * LINE as u64
    }

    /// Bytes that only changes of what is in the table may take.
    pub fn reserve_bytes(&self) -> u64 {
        let word = |w: &AtomicU64| w.load(Relaxed) as usize;
        let (buckets, cells, tools, health) =
            (word(&self.buckets), word(&self.cells), word(&self.tools), word(&self.health));
        (Capacity { buckets, cells, tools, health }.reserve_cells() * LINE) as u64
    }

    /// When the last complete comparison with the source ended, in Unix seconds; 0 is never. Of routes from a snapshot:
    /// when the one before the snapshot did.
    pub fn synced_at(&self) -> u64 {
        self.synced_at.load(Relaxed)
    }

    /// How many seconds before `now`, in Unix seconds, the table was last known to be in step with the source: 0 while the
    /// companion hears the source's heartbeat; of routes from a snapshot the snapshot's age. Withdrawals that are held back do
    /// not age a table. `None` while it was never loaded.
    pub fn age_seconds(&self, now: u64) -> Option<u64> {
        let at = Some(self.in_step_at.load(Relaxed)).filter(|&at| at > 0)?;
        // After a clock was set back the next heartbeat puts it right; without one nobody knows how old it is.
        Some(now.abs_diff(at)).map(|age| if age <= HEARTBEAT_SECONDS { 0 } else { age })
    }

    /// Routes set aside in the source's present state.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// What the table had no room for, ever: new records, and those that [`Self::displaced`] counts.
    pub fn refused_full(&self) -> u64 {
        self.refused_full.load(Relaxed)
    }

    /// Changes for which there was no room, ever: the record is out, as what it said was no longer true.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Relaxed)
    }

    /// How often anything was published or withdrawn, ever.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Records of what the source no longer has, but that are still served because their withdrawal is held back.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Since when they are held, in seconds of the machine's monotonic clock; `None` when that is to be counted anew.
    pub fn held_since(&self) -> Option<u64> {
        Some(self.held_since.load(Relaxed)).filter(|&since| self.held() > 0 && since > 0)
    }

    /// When the first of them were held, by the same clock: earlier than [`held_since`](Self::held_since) if that was counted anew.
    pub fn held_first(&self) -> Option<u64> {
        Some(self.held_first.load(Relaxed)).filter(|&first| self.held() > 0 && first > 0).or_else(|| self.held_since())
    }

    /// Lookups that gave up because the tool's record changed under them again and again, ever.
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
    fn a_zone_is_used_whole_and_never_beyond() {
        for bytes in [32 << 10, 1 << 20, 16 << 20, 192 << 20, (1 << 20) + 13] {
            let capacity = Capacity::of_bytes(bytes).unwrap();
            assert!(capacity.lines() * LINE <= bytes, "{bytes}: {capacity:?}");
            assert!(capacity.lines() * LINE + 2 * LINE > bytes, "{bytes}: {capacity:?}");
        }
        assert_eq!(Capacity::of_bytes(32767), Err(LayoutError::TooSmall(32767)));
    }

    #[test]
    fn what_one_record_may_take_follows_from_the_zone() {
        for (bytes, limit) in
            [(32 << 10, 4 << 10), (1 << 20, 4 << 10), (16 << 20, 9519), (64 << 20, 38_079), (1 << 30, MAX_RECORD_BYTES)]
        {
            let capacity = Capacity::of_bytes(bytes).unwrap();
            assert_eq!(capacity.record_limit(), limit, "{bytes}");
            assert!(capacity.reserve_cells() * LINE >= limit, "{bytes}: {capacity:?}");
            assert!(capacity.reserve_cells() * 4 <= capacity.cells, "{bytes}: {capacity:?}");
        }
    }

    #[test]
    fn sixteen_mebibytes_hold_the_model_platform_many_times() {
        assert!(Capacity::of_bytes(16 << 20).unwrap().tools > 80_000);
    }
}
