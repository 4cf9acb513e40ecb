//! Lookups: no lock, no wait, a bounded number of tries; never a torn, freed or incomplete record.

use std::ops::Range;

use super::atomic::{AtomicU64, Edge, Ordering::Relaxed, Part, acquire, fence_acquire, is_still};
use super::layout::{Bucket, Cell, LINE, MAX_RECORD_BYTES, PREFIX_BYTES, SLOTS, WORDS};
use super::record::{Record, Version};
use super::slot::Slot;
use super::{HashedKey, Table};
use crate::route::LookupKey;

/// Most tries of a lookup whose record keeps changing. Freed cells are quarantined, so even one retry is rare.
const TRIES: usize = 16;

/// The buffer that a lookup copies its record into. Reuse it, so that lookups do not allocate.
#[derive(Debug)]
pub struct Scratch {
    /// At least one line; most records need only one.
    lines: Vec<[u8; LINE]>,
}

/// The result of a lookup.
#[derive(Debug)]
pub enum Lookup<'s> {
    /// The record as of one moment during the call.
    Found(Record<'s>),
    /// There was no record at one moment during the call.
    Absent,
    /// The record changed during each try; says nothing about the key.
    Contended,
}

/// The result of probing one bucket.
enum Probe {
    /// The record, copied into the scratch.
    Found(Version),
    /// The key is neither here nor in a later bucket.
    Absent,
    /// The key is not here, but may be in a later bucket.
    Overflowed,
    /// The record changed while it was copied.
    Torn,
}

impl Table<'_> {
    /// Finds a record by its exact key: a tool by its name, other kinds as [`RouteKey`](crate::route::RouteKey) encodes them.
    pub fn lookup<'s, 'k>(&self, key: impl Into<LookupKey<'k>>, scratch: &'s mut Scratch) -> Lookup<'s> {
        self.lookup_hashed(&self.hash_key(key.into()), scratch)
    }

    /// Like [`Self::lookup`], for a hashed key. The common case is inlined: one bucket, one try.
    #[inline(always)]
    pub fn lookup_hashed<'s>(&self, hashed: &HashedKey<'_>, scratch: &'s mut Scratch) -> Lookup<'s> {
        let home = self.home(hashed.hash);
        let seen = match self.buckets.get(home) {
            Some(bucket) => self.probe_bucket(home, bucket, hashed, scratch),
            None => Probe::Absent,
        };
        let seen = match seen {
            Probe::Overflowed | Probe::Torn => self.probe_further(seen, hashed, scratch),
            seen => seen,
        };
        match seen {
            Probe::Found(version) => Lookup::Found(scratch.record().found_by(hashed.hash, version)),
            Probe::Absent | Probe::Overflowed => Lookup::Absent,
            Probe::Torn => Lookup::Contended,
        }
    }

    /// Probes further buckets, and retries after changes.
    #[inline(never)]
    fn probe_further(&self, mut seen: Probe, hashed: &HashedKey<'_>, scratch: &mut Scratch) -> Probe {
        let mut left = TRIES;
        let mut buckets = self.probe(hashed.hash);
        let _home = buckets.next();
        loop {
            match seen {
                Probe::Overflowed => {}
                Probe::Torn if left > 1 => {
                    left -= 1;
                    buckets = self.probe(hashed.hash);
                }
                Probe::Torn => {
                    self.header.contended.fetch_add(1, Relaxed);
                    return seen;
                }
                seen => return seen,
            }
            let Some((at, bucket)) = buckets.next() else { return Probe::Absent };
            seen = self.probe_bucket(at, bucket, hashed, scratch);
        }
    }

    /// Whether the record that a lookup found is still the key's current one.
    pub fn is_current(&self, version: Version) -> bool {
        let slot = self.buckets.get(version.bucket as usize).and_then(|b| b.slots.get(version.slot as usize));
        // Only a hint: a caller that gets `false` looks up again, with E1.
        slot.is_some_and(|slot| slot.load(Relaxed) == version.word)
    }

    /// Calls `f` with every record. Records that change meanwhile appear in their old or new state, and twice if withdrawn
    /// and republished.
    pub fn for_each(&self, scratch: &mut Scratch, f: impl FnMut(Record<'_>)) {
        self.for_each_in(0..self.slots(), scratch, f);
    }

    /// Number of slots, for [`Self::for_each_in`].
    pub fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// Like [`Self::for_each`], for some of the slots: adjacent ranges, one after the other, visit the table in parts. A record
    /// stays in its slot until it is withdrawn, also when it changes; so a record that stays is visited exactly once, however
    /// much time passes between the parts.
    pub fn for_each_in(&self, slots: Range<usize>, scratch: &mut Scratch, mut f: impl FnMut(Record<'_>)) {
        let buckets = self.buckets.get(slots.start / SLOTS..).unwrap_or_default();
        let of_buckets = buckets.iter().flat_map(|bucket| &bucket.slots).skip(slots.start % SLOTS);
        for slot in of_buckets.take(slots.len()) {
            for _ in 0..TRIES {
                let word = Slot(slot.load(acquire(Edge::E1)));
                if word.is_empty() {
                    break;
                }
                if self.copy(slot, word, scratch) {
                    f(scratch.record());
                    break;
                }
            }
        }
    }

    /// Looks for a key in one bucket.
    #[inline(always)]
    fn probe_bucket(&self, at: usize, bucket: &Bucket, hashed: &HashedKey<'_>, scratch: &mut Scratch) -> Probe {
        for (number, slot) in bucket.slots.iter().enumerate() {
            let word = Slot(slot.load(acquire(Edge::E1)));
            if !word.has_tag(hashed.hash) || word.is_empty() {
                continue;
            }
            if !self.copy(slot, word, scratch) {
                return Probe::Torn;
            }
            if hashed.key.is(scratch.record().key()) {
                return Probe::Found(Version { bucket: at as u32, slot: number as u32, word: word.0 });
            }
        }
        // Edge E4, which ends with the fence of a later copy.
        if bucket.overflow.load(Relaxed) == 0 { Probe::Absent } else { Probe::Overflowed }
    }

    /// Copies the record that a slot with the value `word` points to. `false` if its cells were rewritten meanwhile.
    #[inline(always)]
    fn copy(&self, slot: &AtomicU64, word: Slot, scratch: &mut Scratch) -> bool {
        let cells = self.cells.get(word.cell() as usize..).and_then(|cells| cells.split_first());
        let (Some((first, rest)), Some(line)) = (cells, scratch.lines.first_mut()) else { return false };
        let [stamp_word, ..] = &first.0;
        let stamp = stamp_word.load(acquire(Edge::E3));
        if !word.has_stamp(stamp) {
            return false;
        }
        copy_line(first, line);
        let (len, _) = meta(line);
        if len > LINE - PREFIX_BYTES && !copy_rest(rest, len, scratch) {
            fence_acquire(Edge::E6);
            return false;
        }
        fence_acquire(Edge::E2);
        is_still(stamp, stamp_word, Part::StampRecheck) && is_still(word.0, slot, Part::SlotRecheck)
    }

    /// The record of a slot, for the writer, which alone changes records.
    pub(super) fn own_record<'s>(&self, slot: &AtomicU64, scratch: &'s mut Scratch) -> Option<Record<'s>> {
        self.copy(slot, Slot(slot.load(Relaxed)), scratch).then(|| scratch.record())
    }
}

/// Length and counter number of a record, from its first line.
#[inline(always)]
fn meta(line: &[u8; LINE]) -> (usize, u32) {
    let word = line.as_chunks().0.get(1).map_or(0, |word| u64::from_ne_bytes(*word));
    (word as u32 as usize, (word >> 32) as u32)
}

#[inline(always)]
fn copy_line(cell: &Cell, line: &mut [u8; LINE]) {
    let (words, _) = line.as_chunks_mut();
    for (to, word) in words.iter_mut().zip(&cell.0) {
        *to = word.load(Relaxed).to_ne_bytes(); // edge E2
    }
}

/// Copies the cells of a record after its first. `false` for an impossible length, which was read from a torn record.
#[inline(never)]
fn copy_rest(cells: &[Cell], len: usize, scratch: &mut Scratch) -> bool {
    let more = (PREFIX_BYTES + len).div_ceil(LINE) - 1;
    let Some(cells) = cells.get(..more).filter(|_| len <= MAX_RECORD_BYTES) else { return false };
    if scratch.lines.len() <= more {
        scratch.lines.resize(more + 1, [0; LINE]);
    }
    scratch.lines.iter_mut().skip(1).zip(cells).for_each(|(line, cell)| copy_line(cell, line));
    true
}

impl Default for Scratch {
    fn default() -> Self {
        Self { lines: vec![[0; LINE]] }
    }
}

impl Scratch {
    #[inline(always)]
    fn record(&self) -> Record<'_> {
        let (len, counters) = self.lines.first().map_or((0, 0), meta);
        let bytes = self.lines.as_flattened();
        Record::new(bytes.get(PREFIX_BYTES..PREFIX_BYTES + len).unwrap_or_default(), counters)
    }
}

const _: () = assert!(PREFIX_BYTES / 8 < WORDS);
