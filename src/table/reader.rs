//! Reading: no lock, no wait, a bounded number of tries; never a torn, freed or half-written record.

use super::atomic::{AtomicU64, Edge, Ordering::Relaxed, Part, acquire, fence_acquire, is_still};
use super::layout::{Bucket, Cell, LINE, MAX_RECORD_BYTES, PREFIX_BYTES, WORDS};
use super::record::{Record, Version};
use super::slot::Slot;
use super::{Sought, Table};
use crate::route::LookupKey;

/// Times a lookup starts over because its record changed. Cells rest before they are written again, so even one
/// retry is rare.
const TRIES: usize = 16;

/// Where a record is copied to; kept between lookups so that none allocates.
#[derive(Debug)]
pub struct Scratch {
    /// At least one: most records have no more.
    lines: Vec<[u8; LINE]>,
}

/// What a lookup found.
#[derive(Debug)]
pub enum Lookup<'s> {
    /// The record, as it was at one moment during the call.
    Found(Record<'s>),
    /// There was a moment during the call at which there was no record.
    Absent,
    /// The record changed under every try. Not a statement about the key.
    Contended,
}

/// What a bucket has of a key.
enum Seen {
    /// Its record, now in the scratch.
    Here(Version),
    /// Nothing, nor has any bucket behind it.
    Nowhere,
    /// Nothing, but a bucket behind it may have.
    Beyond,
    /// What changed meanwhile.
    Torn,
}

impl Table<'_> {
    /// Finds a record by its exact key: a tool by its name, the others as [`RouteKey`](crate::route::RouteKey) says.
    pub fn lookup<'s, 'k>(&self, key: impl Into<LookupKey<'k>>, scratch: &'s mut Scratch) -> Lookup<'s> {
        self.look_up(&self.sought(key.into()), scratch)
    }

    /// The same for a key whose hash is known. What nearly every look-up comes to is inlined: one bucket, tried once.
    #[inline(always)]
    pub fn look_up<'s>(&self, sought: &Sought<'_>, scratch: &'s mut Scratch) -> Lookup<'s> {
        let home = self.home(sought.hash);
        let seen = match self.buckets.get(home) {
            Some(bucket) => self.look_into(home, bucket, sought, scratch),
            None => Seen::Nowhere,
        };
        let seen = match seen {
            Seen::Beyond | Seen::Torn => self.look_further(seen, sought, scratch),
            seen => seen,
        };
        match seen {
            Seen::Here(version) => Lookup::Found(scratch.record().found_by(sought.hash, version)),
            Seen::Nowhere | Seen::Beyond => Lookup::Absent,
            Seen::Torn => Lookup::Contended,
        }
    }

    /// Goes on when the home has nothing, and starts over as often as something changed.
    #[inline(never)]
    fn look_further(&self, mut seen: Seen, sought: &Sought<'_>, scratch: &mut Scratch) -> Seen {
        let mut left = TRIES;
        let mut buckets = self.probe(sought.hash);
        let _home = buckets.next();
        loop {
            match seen {
                Seen::Beyond => {}
                Seen::Torn if left > 1 => {
                    left -= 1;
                    buckets = self.probe(sought.hash);
                }
                Seen::Torn => {
                    self.header.contended.fetch_add(1, Relaxed);
                    return seen;
                }
                seen => return seen,
            }
            let Some((at, bucket)) = buckets.next() else { return Seen::Nowhere };
            seen = self.look_into(at, bucket, sought, scratch);
        }
    }

    /// Whether the record that a lookup found is still the key's. `false` also when there is another, or none, by now.
    pub fn is_current(&self, version: Version) -> bool {
        let slot = self.buckets.get(version.bucket as usize).and_then(|b| b.slots.get(version.slot as usize));
        // A hint: whoever is told that there is a newer one looks it up, with E1.
        slot.is_some_and(|slot| slot.load(Relaxed) == version.word)
    }

    /// Calls `f` with every record; what is added, changed or withdrawn meanwhile may be seen as before or as
    /// after, and twice if it was withdrawn and came back.
    pub fn for_each(&self, scratch: &mut Scratch, mut f: impl FnMut(Record<'_>)) {
        for slot in self.buckets.iter().flat_map(|bucket| &bucket.slots) {
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

    /// Looks for a key in one of the buckets that it may be in.
    #[inline(always)]
    fn look_into(&self, at: usize, bucket: &Bucket, sought: &Sought<'_>, scratch: &mut Scratch) -> Seen {
        for (number, slot) in bucket.slots.iter().enumerate() {
            let word = Slot(slot.load(acquire(Edge::E1)));
            if !word.has_tag(sought.hash) || word.is_empty() {
                continue;
            }
            if !self.copy(slot, word, scratch) {
                return Seen::Torn;
            }
            if sought.key.is(scratch.record().key()) {
                return Seen::Here(Version { bucket: at as u32, slot: number as u32, word: word.0 });
            }
        }
        // Edge E4, which ends with the fence of a later copy.
        if bucket.overflow.load(Relaxed) == 0 { Seen::Nowhere } else { Seen::Beyond }
    }

    /// Copies the record that a slot named when it held `word`. `false` when its cells were written again meanwhile.
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

    /// The record behind a slot, for the writer, who alone can change it.
    pub(super) fn own_record<'s>(&self, slot: &AtomicU64, scratch: &'s mut Scratch) -> Option<Record<'s>> {
        self.copy(slot, Slot(slot.load(Relaxed)), scratch).then(|| scratch.record())
    }
}

/// Length and counters of the record whose first line this is.
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

/// Copies what a record of this length has in the cells behind its first. `false` for a length torn from a later record, which
/// may be anything.
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
