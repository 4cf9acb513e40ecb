//! The memory of a table: a shared zone, or the heap for libraries, tests, benchmarks and the model checker.
#![allow(unsafe_code)]

use super::Table;
use super::counters::Counters;
use super::health::{Health, HealthLine};
use super::layout::{Bucket, Capacity, Cell, Header};
#[cfg(not(loom))]
use super::layout::{LINE, LayoutError};
use super::stats::{Note, Notes, Question, Questions, Series, SourceState, WorkerStats};

/// A table in heap memory, for one process.
pub struct OwnedTable {
    header: Header,
    buckets: Vec<Bucket>,
    cells: Vec<Cell>,
    counters: Vec<Counters>,
    health: Vec<HealthLine>,
    source: SourceState,
    workers: Vec<WorkerStats>,
    series: Vec<Series>,
    notes: Vec<Note>,
    questions: Vec<Question>,
}

impl OwnedTable {
    /// An empty table with a fixed hash key.
    pub fn new(capacity: Capacity) -> Self {
        fn lines<T>(count: usize, new: fn() -> T) -> Vec<T> {
            std::iter::repeat_with(new).take(count).collect()
        }
        let table = Self {
            header: Header::new(),
            buckets: lines(capacity.buckets, Bucket::new),
            cells: lines(capacity.cells, Cell::new),
            counters: lines(capacity.tools, Counters::new),
            health: lines(capacity.health, HealthLine::new),
            source: SourceState::new(),
            workers: lines(capacity.workers, WorkerStats::new),
            series: lines(capacity.series, Series::new),
            notes: lines(capacity.notes, Note::new),
            questions: lines(capacity.questions, Question::new),
        };
        table.header.format(capacity, [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        table
    }

    /// The view for readers and the writer.
    pub fn table(&self) -> Table<'_> {
        Table {
            header: &self.header,
            buckets: &self.buckets,
            cells: &self.cells,
            counters: &self.counters,
            health: Health::new(&self.health),
            source: &self.source,
            workers: &self.workers,
            series: &self.series,
            notes: Notes::new(&self.notes),
            questions: Questions::new(&self.questions),
        }
    }
}

#[cfg(not(loom))]
impl Table<'static> {
    /// Formats zeroed shared memory as an empty table.
    ///
    /// # Errors
    /// [`LayoutError::TooSmall`] under 32 KiB.
    ///
    /// # Safety
    /// `memory` is aligned to 64 bytes, all zero, `bytes` long, stays mapped for the rest of the process, and is
    /// written only through tables.
    pub unsafe fn format(memory: *mut u8, bytes: usize, hash_key: [u64; 2]) -> Result<Self, LayoutError> {
        let capacity = Capacity::of_bytes(bytes)?;
        // SAFETY: zero bytes are a valid header of atomic words; the rest is the caller's promise.
        let header = unsafe { &*memory.cast::<Header>() };
        header.format(capacity, hash_key);
        // SAFETY: the caller's promise, passed on.
        unsafe { Self::attach(memory, bytes) }
    }

    /// Attaches to a table that was formatted earlier.
    ///
    /// # Errors
    /// [`LayoutError::Foreign`] if the memory holds no table of this version; [`LayoutError::TooSmall`].
    ///
    /// # Safety
    /// As for [`Self::format`], except that the memory need not be zero.
    pub unsafe fn attach(memory: *mut u8, bytes: usize) -> Result<Self, LayoutError> {
        if bytes < size_of::<Header>() {
            return Err(LayoutError::TooSmall(bytes));
        }
        // SAFETY: the caller's promise; any bytes are valid atomic words.
        let header = unsafe { &*memory.cast::<Header>() };
        let capacity = header.capacity()?;
        if capacity.lines().checked_mul(LINE).is_none_or(|needed| needed > bytes) {
            return Err(LayoutError::Foreign);
        }
        let mut at = size_of::<Header>();
        // SAFETY: the lines are adjacent and within `bytes`, as just checked; the same holds for all below.
        let buckets = unsafe { take::<Bucket>(memory, &mut at, capacity.buckets) };
        // SAFETY: as above.
        let cells = unsafe { take::<Cell>(memory, &mut at, capacity.cells) };
        // SAFETY: as above.
        let counters = unsafe { take::<Counters>(memory, &mut at, capacity.tools) };
        // SAFETY: as above.
        let health = unsafe { take::<HealthLine>(memory, &mut at, capacity.health) };
        // SAFETY: as above.
        let source = unsafe { take::<SourceState>(memory, &mut at, 1) };
        // SAFETY: as above.
        let workers = unsafe { take::<WorkerStats>(memory, &mut at, capacity.workers) };
        // SAFETY: as above.
        let series = unsafe { take::<Series>(memory, &mut at, capacity.series) };
        // SAFETY: as above.
        let notes = unsafe { take::<Note>(memory, &mut at, capacity.notes) };
        // SAFETY: as above.
        let questions = unsafe { take::<Question>(memory, &mut at, capacity.questions) };
        let (source, _) = source.split_first().ok_or(LayoutError::Foreign)?;
        let (health, notes, questions) = (Health::new(health), Notes::new(notes), Questions::new(questions));
        Ok(Self { header, buckets, cells, counters, health, source, workers, series, notes, questions })
    }
}

/// The next `count` lines from the offset `at`; advances `at`.
///
/// # Safety
/// They lie within memory that is aligned to 64 bytes and stays mapped. All are plain atomic words.
#[cfg(not(loom))]
unsafe fn take<T>(memory: *mut u8, at: &mut usize, count: usize) -> &'static [T] {
    // SAFETY: the caller's promise.
    let start = unsafe { memory.add(*at) };
    *at += count * size_of::<T>();
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(start.cast(), count) }
}
