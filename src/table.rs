//! The route table in shared memory: one writer, any number of readers that never wait. No nginx, no Redis.
//!
//! ```text
//! Header | Bucket ... | Cell ... | Counters ... | Health ...          all 64-byte lines, offsets, no pointers
//!           7 slots + overflow count
//!           slot = tag 16 | cell 28 | stamp 20  ──▶ record: stamp 64, length, counters, key, routes, backends,
//!                                                  automata
//! ```
//!
//! A tool is one record, and so is a redirect, or a domain. Inserting, replacing and withdrawing it is one Release store of its slot. A record is never
//! changed while a slot names it; its cells are written again only after that, and whoever still reads them finds
//! out by the stamp, which is never used twice.
//!
//! A writer killed at any instruction leaves either the old slot or the new one. Cells no slot names are free: the
//! next writer finds that out by scanning, see [`Writer::attach`]. Why all this holds, ordering by ordering (E1 to E6),
//! is in `proof.rs`, with the models that carry it out.

mod arena;
mod atomic;
#[cfg(not(loom))]
mod carry;
mod counter_lines;
mod counters;
mod hash;
mod health;
mod layout;
mod memory;
mod proof;
mod reader;
mod record;
mod slot;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

#[cfg(not(loom))]
pub use carry::carry_over;
pub use counters::{Counters, StatusClass, Tally};
pub use health::{Health, HealthKey, HealthSettings};
pub use layout::{Capacity, Header, LayoutError, LoadedFrom, MAX_RECORD_BYTES};
pub use memory::OwnedTable;
pub use reader::{Lookup, Scratch, Version};
pub use record::{BackendView, HostView, Record, RouteView, backend_bytes, record_bytes, route_bytes};
pub use writer::{PublishError, Published, Recovered, Writer};

use layout::{Bucket, Cell};

/// A view of one table, wherever its memory is. Cheap to copy; shared by readers and the one writer.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    header: &'a Header,
    buckets: &'a [Bucket],
    cells: &'a [Cell],
    counters: &'a [Counters],
    health: Health<'a>,
}

impl<'a> Table<'a> {
    /// The words that describe the table's state to everybody.
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// Failure state of backends, shared by all workers.
    pub fn health(&self) -> Health<'a> {
        self.health
    }

    /// How much fits.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            buckets: self.buckets.len(),
            cells: self.cells.len(),
            tools: self.counters.len(),
            health: self.health.len(),
        }
    }

    /// Bytes that one record may take of it.
    pub fn record_limit(&self) -> usize {
        self.capacity().record_limit()
    }

    /// The counters of a record, by the number it gives. `None` only if that number is nonsense.
    pub fn counters(&self, number: u32) -> Option<&'a Counters> {
        self.counters.get(number as usize)
    }

    /// A name for this table, drawn with its zone. It says nothing about the hashes of keys: none has this text.
    pub fn pseudonym(&self) -> u64 {
        self.hash(b"\0pseudonym")
    }

    /// Keyed, because tenants choose the names.
    #[inline(always)]
    fn hash(&self, key: &[u8]) -> u64 {
        use atomic::Ordering::Relaxed;
        let (k0, k1) = (self.header.hash_key0.load(Relaxed), self.header.hash_key1.load(Relaxed));
        hash::siphash13(k0, k1, key)
    }

    /// The home bucket of a hash.
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The buckets a key may be in, its home first.
    fn probe(&self, hash: u64) -> impl Iterator<Item = (usize, &'a Bucket)> + use<'a> {
        let (buckets, home) = (self.buckets, self.home(hash));
        (0..layout::MAX_PROBES.min(buckets.len())).filter_map(move |step| {
            let at = (home + step) % buckets.len();
            buckets.get(at).map(|bucket| (at, bucket))
        })
    }
}
