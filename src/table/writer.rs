//! The single writer. It can rebuild its private state from the table at any time.

use std::collections::HashSet;

use super::Table;
use super::arena::Arena;
use super::atomic::{AtomicU64, Edge, Ordering::Relaxed, fence_release, release};
use super::counter_lines::CounterLines;
use super::counters::Tally;
use super::layout::{LINE, LoadedFrom, PREFIX_BYTES, SLOTS};
use super::position::SlotPosition;
use super::reader::Scratch;
use super::record::{self, Record};
use super::slot::Slot;
use crate::route::{Kind, Route, RouteKey};

/// What a publication changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The key is new.
    Inserted,
    /// The key had other routes.
    Replaced,
    /// The key had the same routes.
    Unchanged,
}

/// Why a record was not published. The key's old record, if any, is withdrawn: it is outdated, and its backend's address may
/// belong to another tenant by now. All other records stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The table is full, or has no room for a record of this size.
    #[error("no room for {key}: {live} of {capacity} records, {live_bytes} bytes; enlarge the zone")]
    TableFull {
        /// The refused key.
        key: RouteKey,
        /// Number of records in the table.
        live: u64,
        /// Most records that the table holds.
        capacity: usize,
        /// Bytes in use by records.
        live_bytes: u64,
    },
    /// The record exceeds the limit of one record.
    #[error("the routes of {key} take {bytes} bytes, expected at most {limit}")]
    TooLarge {
        /// The refused key.
        key: RouteKey,
        /// Size of the record.
        bytes: usize,
        /// Most bytes of one record in this zone.
        limit: usize,
    },
}

/// What a new writer found in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Number of tools.
    pub tools: u64,
    /// Slots without a valid record, which were cleared. Always 0 unless memory was damaged.
    pub damaged: u64,
}

/// The one writer of a table. A process that creates one must hold the writer lock of a shared table.
pub struct Writer<'a> {
    table: Table<'a>,
    arena: Arena,
    lines: CounterLines,
    last_stamp: u64,
    /// Number of records by kind.
    live: [u64; Kind::ALL.len()],
    /// Number of routes.
    live_routes: u64,
    /// Hashes of keys that were withdrawn for lack of room: they may use the reserve when they return.
    displaced: HashSet<u64>,
    /// One bit per slot: seen since [`Writer::begin_sweep`].
    seen: Vec<u64>,
    scratch: Scratch,
    encoded: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Takes over a table: scans it, clears invalid slots, recounts overflows.
    pub fn attach(table: Table<'a>) -> (Self, Recovered) {
        let mut writer = Self {
            table,
            arena: Arena::new(0, Vec::new()),
            lines: CounterLines::default(),
            last_stamp: table.header.last_stamp.load(Relaxed),
            live: [0; Kind::ALL.len()],
            live_routes: 0,
            displaced: HashSet::new(),
            seen: vec![0; (table.buckets.len() * SLOTS).div_ceil(64)],
            scratch: Scratch::default(),
            encoded: Vec::new(),
        };
        let mut found = Recovered::default();
        let mut extents = Vec::new();
        let mut owners = HashSet::new();
        let mut overflow = vec![0u64; table.buckets.len()];
        for (at, bucket) in table.buckets.iter().enumerate() {
            for slot in &bucket.slots {
                let word = Slot(slot.load(Relaxed));
                if word.is_empty() {
                    continue;
                }
                let record = table.own_record(slot, &mut writer.scratch);
                let home = record.and_then(|record| {
                    let (kind, hash) = (RouteKey::from_table(record.key()).ok()?.kind(), table.hash(record.key()));
                    let distance =
                        word.has_tag(hash).then(|| table.probe(hash).map(|(b, _)| b).position(|b| b == at))??;
                    Some((record, kind, hash, distance))
                });
                let Some((record, kind, hash, distance)) = home.filter(|(r, ..)| owners.insert(r.counters())) else {
                    slot.store(0, release(Edge::E1));
                    found.damaged += 1;
                    continue;
                };
                extents.push((word.cell(), cells_of(record.byte_len())));
                for (passed, _) in table.probe(hash).take(distance) {
                    if let Some(count) = overflow.get_mut(passed) {
                        *count += 1;
                    }
                }
                let routes = record.route_count();
                writer.count(kind, 1);
                writer.live_routes += routes;
            }
        }
        // Lowers counts that a killed writer left too high; nothing is inserted meanwhile.
        for (bucket, count) in table.buckets.iter().zip(overflow) {
            bucket.overflow.store(count, release(Edge::E4));
        }
        writer.arena = Arena::new(table.cells.len() as u32, extents);
        writer.lines = CounterLines::scan(&table, &owners);
        found.tools = writer.live_of(Kind::Tool);
        writer.store_counts();
        (writer, found)
    }

    /// The view of the table.
    pub fn table(&self) -> Table<'a> {
        self.table
    }

    /// Publishes routes without regular expressions: without automata, those would never match.
    ///
    /// # Errors
    /// As for [`Self::publish_with`].
    pub fn publish(&mut self, key: &RouteKey, routes: &[Route]) -> Result<Published, PublishError> {
        self.publish_with(key, routes, &[])
    }

    /// Publishes routes with the automata of their regular expressions. Marks the key as seen.
    ///
    /// # Errors
    /// Every [`PublishError`]; the key's old record is then withdrawn.
    pub fn publish_with(
        &mut self,
        key: &RouteKey,
        routes: &[Route],
        automata: &[u8],
    ) -> Result<Published, PublishError> {
        self.encoded.clear();
        record::encode(key, routes, automata, &mut self.encoded);
        self.put(key, false)
    }

    /// The key's current record.
    pub fn record(&mut self, key: &[u8]) -> Option<Record<'_>> {
        let position = self.find(self.table.hash(key), key)?;
        self.table.own_record(self.table.slot(position)?, &mut self.scratch)
    }

    /// Copies a record of another table with its counter values. Such a record may use the reserve.
    ///
    /// # Errors
    /// As for [`Self::publish_with`].
    pub fn adopt(&mut self, key: &RouteKey, record: &Record<'_>, tally: &Tally) -> Result<Published, PublishError> {
        self.encoded.clear();
        self.encoded.extend_from_slice(record.bytes());
        let published = self.put(key, true)?;
        let hash = self.table.hash(key.as_bytes());
        let slot = self.find(hash, key.as_bytes()).and_then(|position| self.table.slot(position));
        let copied = slot.and_then(|slot| self.table.own_record(slot, &mut self.scratch));
        if let Some(line) = copied.and_then(|copied| self.table.counters(copied.counters())) {
            line.restore(tally);
        }
        Ok(published)
    }

    /// Publishes the encoded record.
    fn put(&mut self, key: &RouteKey, is_carried: bool) -> Result<Published, PublishError> {
        let hash = self.table.hash(key.as_bytes());
        let position = self.find(hash, key.as_bytes());
        if let Some(position) = position {
            self.mark(position);
        }
        let (bytes, limit) = (self.encoded.len(), self.table.record_limit());
        if bytes > limit {
            self.displace(key);
            return Err(PublishError::TooLarge { key: key.clone(), bytes, limit });
        }
        let mut old = position.map(|position| (position, self.load(position)));
        let had = position.and_then(|position| self.table.own_record(self.table.slot(position)?, &mut self.scratch));
        let (had_counters, had_bytes) = had.map(|r| (r.counters(), r.byte_len())).unzip();
        let had_routes = had.map_or(0, |r| r.route_count());
        if had.is_some_and(|r| r.bytes() == self.encoded) {
            return Ok(Published::Unchanged);
        }
        let published = if old.is_some() { Published::Replaced } else { Published::Inserted };
        let is_new = old.is_none() && !is_carried && !self.displaced.contains(&hash);
        let reserve = if !is_new { 0 } else { self.table.capacity().reserve_cells() as u64 };
        let mut space = self.allocate(hash, old.map(|(position, _)| position), had_counters, cells_of(bytes), reserve);
        if space.is_none() && old.is_some() {
            // The old record is outdated, and its cells may be needed: the key is absent for a moment.
            self.withdraw(key.as_bytes());
            old = None;
            space = self.allocate(hash, None, None, cells_of(bytes), 0);
            if space.is_none() {
                self.note_displaced(hash);
            }
        }
        let Some((position, cell, counters)) = space else {
            self.table.header.refused_full.fetch_add(1, Relaxed);
            return Err(self.full(key));
        };
        self.displaced.remove(&hash);
        let stamp = self.write(cell, counters);
        self.store(position, Slot::new(hash, cell, stamp));
        self.mark(position);
        match old.zip(had_bytes) {
            Some(((_, slot), bytes)) => {
                self.arena.free(slot.cell(), cells_of(bytes));
                self.live_routes -= had_routes.min(self.live_routes);
            }
            None => self.count(key.kind(), 1),
        }
        self.live_routes += record::route_count(&self.encoded);
        self.store_counts();
        Ok(published)
    }

    /// Withdraws an outdated record whose replacement is too large.
    fn displace(&mut self, key: &RouteKey) {
        if self.withdraw(key.as_bytes()) {
            self.note_displaced(self.table.hash(key.as_bytes()));
        }
    }

    fn note_displaced(&mut self, hash: u64) {
        self.table.header.displaced.fetch_add(1, Relaxed);
        // Bounded, in case displaced keys never return.
        if self.displaced.len() < self.table.counters.len() {
            self.displaced.insert(hash);
        }
    }

    /// Withdraws a record; `false` if there is none.
    pub fn withdraw(&mut self, key: &[u8]) -> bool {
        let hash = self.table.hash(key);
        self.displaced.remove(&hash);
        let Some(position) = self.find(hash, key) else { return false };
        let slot = self.load(position);
        let had = self.table.slot(position).and_then(|slot| self.table.own_record(slot, &mut self.scratch));
        let had = had.map(|r| (r.counters(), r.byte_len(), r.route_count()));
        self.store(position, Slot(0));
        if let Some((counters, bytes, routes)) = had {
            self.live_routes -= routes.min(self.live_routes);
            self.arena.free(slot.cell(), cells_of(bytes));
            self.lines.release(counters, hash);
        }
        // Only now: readers that still follow the probe path find an empty slot at its end.
        for (_, bucket) in self.table.probe(hash).take_while(|&(at, _)| at != position.bucket) {
            let count = bucket.overflow.load(Relaxed);
            bucket.overflow.store(count.saturating_sub(1), release(Edge::E4));
        }
        self.count(Kind::of(key), -1);
        self.store_counts();
        true
    }

    /// Begins a mark-and-sweep: marks all keys as unseen.
    pub fn begin_sweep(&mut self) {
        self.seen.fill(0);
    }

    /// Marks a key as seen without changing it. `false` if it is not in the table.
    pub fn confirm(&mut self, key: &[u8]) -> bool {
        let position = self.find(self.table.hash(key), key);
        position.inspect(|&position| self.mark(position)).is_some()
    }

    /// The keys not seen since [`Self::begin_sweep`].
    pub fn unseen(&mut self) -> Vec<RouteKey> {
        let mut unseen = Vec::new();
        for (bucket, slot) in (0..self.table.buckets.len()).flat_map(|b| (0..SLOTS).map(move |s| (b, s))) {
            let position = SlotPosition { bucket, slot };
            let word = self.load(position);
            if !word.is_empty()
                && !self.is_seen(position)
                && let Some(record) =
                    self.table.slot(position).and_then(|s| self.table.own_record(s, &mut self.scratch))
            {
                // An invalid key means damaged memory; the next writer clears the slot.
                unseen.extend(RouteKey::from_table(record.key()));
            }
        }
        unseen
    }

    /// Records that a full scan ended at `unix_seconds`, with `rejected` routes: the table holds all other routes of the kinds
    /// in `known`.
    pub fn mark_synced(&mut self, unix_seconds: u64, rejected: u64, known: &[Kind]) {
        self.note_known(known);
        self.table.header.synced_at.store(unix_seconds, Relaxed);
        self.note_in_step(unix_seconds);
        self.table.header.rejected.store(rejected, Relaxed);
        self.table.header.loaded.store(LoadedFrom::Source as u64, release(Edge::E5));
    }

    /// Records that a snapshot of `unix_seconds` was restored, which was complete for the kinds in `known`.
    pub fn mark_restored(&mut self, unix_seconds: u64, known: &[Kind]) {
        self.note_known(known);
        self.table.header.synced_at.store(unix_seconds, Relaxed);
        self.note_in_step(unix_seconds);
        self.table.header.loaded.store(LoadedFrom::Snapshot as u64, release(Edge::E5));
    }

    /// Records that the table was in step with the source at `unix_seconds`. Stores only a changed value.
    pub fn note_in_step(&mut self, unix_seconds: u64) {
        let word = &self.table.header.in_step_at;
        if word.load(Relaxed) != unix_seconds {
            word.store(unix_seconds, Relaxed);
        }
    }

    fn note_known(&mut self, kinds: &[Kind]) {
        let bits = kinds.iter().fold(0, |bits, &kind| bits | 1 << kind as u64);
        self.table.header.known.store(bits, Relaxed); // edge E5: before `loaded`, whose Release covers it
    }

    /// Records the number of held records and when the hold (re)started, in seconds of the monotonic clock; `None` if it must
    /// restart. The first start is kept until nothing is held.
    pub fn note_held(&mut self, records: u64, since_seconds: Option<u64>) {
        let first = self.table.header().held_first().or(since_seconds);
        self.table.header.held_first.store(first.unwrap_or(0), Relaxed);
        self.table.header.held_since.store(since_seconds.unwrap_or(0), Relaxed);
        self.table.header.held.store(records, Relaxed);
    }

    /// Records the current number of rejected routes.
    pub fn note_rejected(&mut self, rejected: u64) {
        self.table.header.rejected.store(rejected, Relaxed);
    }

    /// Allocates a slot, cells and a counter line for a record, keeping `reserve` cells free; opens the probe path to the slot.
    /// All or nothing.
    fn allocate(
        &mut self,
        hash: u64,
        at: Option<SlotPosition>,
        line: Option<u32>,
        cells: u32,
        reserve: u64,
    ) -> Option<(SlotPosition, u32, u32)> {
        let position = at.or_else(|| self.free_slot(hash))?;
        let cell = self.arena.alloc(cells, reserve)?;
        let Some(line) = line.or_else(|| self.lines.take(&self.table, hash)) else {
            self.arena.free(cell, cells);
            return None;
        };
        if at.is_none() {
            for (_, bucket) in self.table.probe(hash).take_while(|&(b, _)| b != position.bucket) {
                let count = bucket.overflow.load(Relaxed);
                bucket.overflow.store(count.saturating_add(1), Relaxed); // edge E4: before the slot, whose Release covers it
            }
        }
        Some((position, cell, line))
    }

    /// Writes the encoded record into free cells and returns its stamp.
    fn write(&mut self, cell: u32, counters: u32) -> u64 {
        // Damaged memory may hold the greatest stamp; 0 marks a record that is being written.
        self.last_stamp = self.last_stamp.wrapping_add(1).max(1);
        let stamp = self.last_stamp;
        self.table.header.last_stamp.store(stamp, Relaxed);
        let len = self.encoded.len();
        let cells = self.table.cells.get(cell as usize..).unwrap_or_default();
        let Some((first, _)) = cells.split_first() else { return stamp };
        let [stamp_word, meta_word, ..] = &first.0;
        stamp_word.store(0, release(Edge::E6));
        fence_release(Edge::E2);
        meta_word.store(u64::from(counters) << 32 | len as u64, Relaxed);
        let words = cells.iter().flat_map(|cell| &cell.0).skip(PREFIX_BYTES / size_of::<u64>());
        for (word, bytes) in words.zip(self.encoded.chunks(size_of::<u64>())) {
            let mut whole = [0; size_of::<u64>()];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(whole), Relaxed); // edge E2
        }
        stamp_word.store(stamp, release(Edge::E3));
        stamp
    }

    fn find(&mut self, hash: u64, key: &[u8]) -> Option<SlotPosition> {
        for (at, bucket) in self.table.probe(hash) {
            for (number, slot) in bucket.slots.iter().enumerate() {
                let word = Slot(slot.load(Relaxed));
                if !word.is_empty()
                    && word.has_tag(hash)
                    && self.table.own_record(slot, &mut self.scratch).is_some_and(|r| r.key() == key)
                {
                    return Some(SlotPosition { bucket: at, slot: number });
                }
            }
            if bucket.overflow.load(Relaxed) == 0 {
                return None;
            }
        }
        None
    }

    fn free_slot(&self, hash: u64) -> Option<SlotPosition> {
        self.table.probe(hash).find_map(|(at, bucket)| {
            let slot = bucket.slots.iter().position(|word| Slot(word.load(Relaxed)).is_empty())?;
            Some(SlotPosition { bucket: at, slot })
        })
    }

    fn load(&self, position: SlotPosition) -> Slot {
        Slot(self.table.slot(position).map_or(0, |word| word.load(Relaxed)))
    }

    /// The only store that changes lookup results.
    fn store(&mut self, position: SlotPosition, slot: Slot) {
        if let Some(word) = self.table.slot(position) {
            word.store(slot.0, release(Edge::E1));
            let changes = &self.table.header.changes;
            changes.store(changes.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    fn mark(&mut self, position: SlotPosition) {
        let bit = position.number();
        if let Some(word) = self.seen.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    fn is_seen(&self, position: SlotPosition) -> bool {
        let bit = position.number();
        self.seen.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    fn store_counts(&self) {
        self.table.header.live.iter().zip(self.live).for_each(|(word, count)| word.store(count, Relaxed));
        self.table.header.live_routes.store(self.live_routes, Relaxed);
        self.table.header.live_cells.store(self.arena.live(), Relaxed);
        self.table.header.largest_run.store(self.arena.longest_run(), Relaxed);
    }

    fn count(&mut self, kind: Kind, change: i64) {
        if let Some(count) = self.live.get_mut(kind as usize) {
            *count = count.saturating_add_signed(change);
        }
    }

    fn live_of(&self, kind: Kind) -> u64 {
        self.live.get(kind as usize).copied().unwrap_or(0)
    }

    fn full(&self, key: &RouteKey) -> PublishError {
        PublishError::TableFull {
            key: key.clone(),
            live: self.live.iter().sum(),
            capacity: self.table.counters.len(),
            live_bytes: self.arena.live() * LINE as u64,
        }
    }
}

impl<'a> Table<'a> {
    fn slot(&self, position: SlotPosition) -> Option<&'a AtomicU64> {
        self.buckets.get(position.bucket)?.slots.get(position.slot)
    }
}

/// Number of cells for a record of `bytes` bytes.
fn cells_of(bytes: usize) -> u32 {
    (PREFIX_BYTES + bytes).div_ceil(LINE) as u32
}
