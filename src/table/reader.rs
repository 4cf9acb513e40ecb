//! Reading: no lock, no wait, a bounded number of tries; never a torn, freed or half-written record.

use super::Table;
use super::atomic::{AtomicU64, Edge, Ordering::Relaxed, Part, acquire, fence_acquire, is_still};
use super::layout::{LINE, MAX_RECORD_BYTES, WORDS};
use super::record::Record;
use super::slot::Slot;

/// Times a lookup starts over because its record changed. Cells rest before they are written again, so even one
/// retry is rare.
const TRIES: usize = 16;
/// Bytes before the record proper: the stamp, then its length and the number of its counters.
pub(super) const PREFIX_BYTES: usize = 16;

/// Where a record is copied to; kept between lookups so that none allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    bytes: Vec<u8>,
}

/// Which record a lookup found, for [`Table::is_current`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    bucket: u32,
    slot: u32,
    /// The slot's word: it differs from that of any other record there, but for one of 2^20 records later.
    word: u64,
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

/// What one copy came to.
enum Copied {
    /// Length and counters of a whole record, now in the scratch.
    Whole { len: usize, counters: u32 },
    /// The cells were written again meanwhile.
    Torn,
}

impl Table<'_> {
    /// Finds a record by its exact key: a tool by its name, the others as [`RouteKey`](crate::route::RouteKey) says.
    #[inline(always)]
    pub fn lookup<'s>(&self, key: &[u8], scratch: &'s mut Scratch) -> Lookup<'s> {
        let hash = self.hash(key);
        for _ in 0..TRIES {
            match self.search(hash, key, scratch) {
                Ok(Some((len, counters, version))) => {
                    return Lookup::Found(scratch.record(len, counters).found_by(hash, version));
                }
                Ok(None) => return Lookup::Absent,
                Err(Changed) => {}
            }
        }
        self.header.contended.fetch_add(1, Relaxed);
        Lookup::Contended
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
                if let Copied::Whole { len, counters } = self.copy(slot, word, scratch) {
                    f(scratch.record(len, counters));
                    break;
                }
            }
        }
    }

    /// One pass over the buckets the key may be in.
    #[inline(always)]
    fn search(&self, hash: u64, key: &[u8], scratch: &mut Scratch) -> Result<Option<(usize, u32, Version)>, Changed> {
        for (at, bucket) in self.probe(hash) {
            for (number, slot) in bucket.slots.iter().enumerate() {
                let word = Slot(slot.load(acquire(Edge::E1)));
                if !word.has_tag(hash) || word.is_empty() {
                    continue;
                }
                let Copied::Whole { len, counters } = self.copy(slot, word, scratch) else { return Err(Changed) };
                if scratch.record(len, counters).key() == key {
                    return Ok(Some((len, counters, Version { bucket: at as u32, slot: number as u32, word: word.0 })));
                }
            }
            if bucket.overflow.load(Relaxed) == 0 {
                break; // edge E4, which ends with the fence of a later copy
            }
        }
        Ok(None)
    }

    /// Copies the record that a slot named when it held `word`.
    #[inline]
    fn copy(&self, slot: &AtomicU64, word: Slot, scratch: &mut Scratch) -> Copied {
        let Some((first, rest)) = self.cells.get(word.cell() as usize..).and_then(|cells| cells.split_first()) else {
            return Copied::Torn;
        };
        let [stamp_word, meta_word, ..] = &first.0;
        let stamp = stamp_word.load(acquire(Edge::E3));
        if !word.has_stamp(stamp) {
            return Copied::Torn;
        }
        let meta = meta_word.load(Relaxed);
        let (len, counters) = (meta as u32 as usize, (meta >> 32) as u32);
        let more = (PREFIX_BYTES + len).div_ceil(LINE).saturating_sub(1);
        // A length torn from a later record may be anything.
        let Some(rest) = rest.get(..more).filter(|_| len <= MAX_RECORD_BYTES) else {
            fence_acquire(Edge::E6);
            return Copied::Torn;
        };
        let needed = (more + 1) * LINE;
        if scratch.bytes.len() < needed {
            scratch.bytes.resize(needed, 0);
        }
        let (lines, _) = scratch.bytes.as_chunks_mut::<LINE>();
        for (line, cell) in lines.iter_mut().zip(std::iter::once(first).chain(rest)) {
            let (words, _) = line.as_chunks_mut();
            for (to, word) in words.iter_mut().zip(&cell.0) {
                *to = word.load(Relaxed).to_ne_bytes(); // edge E2
            }
        }
        fence_acquire(Edge::E2);
        let is_same = is_still(stamp, stamp_word, Part::StampRecheck) && is_still(word.0, slot, Part::SlotRecheck);
        if is_same { Copied::Whole { len, counters } } else { Copied::Torn }
    }

    /// The record behind a slot, for the writer, who alone can change it.
    pub(super) fn own_record<'s>(&self, slot: &AtomicU64, scratch: &'s mut Scratch) -> Option<Record<'s>> {
        match self.copy(slot, Slot(slot.load(Relaxed)), scratch) {
            Copied::Whole { len, counters } => Some(scratch.record(len, counters)),
            Copied::Torn => None,
        }
    }
}

struct Changed;

impl Scratch {
    fn record(&self, len: usize, counters: u32) -> Record<'_> {
        Record::new(self.bytes.get(PREFIX_BYTES..PREFIX_BYTES + len).unwrap_or_default(), counters)
    }
}

const _: () = assert!(PREFIX_BYTES / 8 < WORDS);
