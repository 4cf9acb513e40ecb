//! The route table in shared memory: one writer, any number of wait-free readers. No nginx, no Redis.
//!
//! ```text
//! Header | Bucket ... | Cell ... | Counters ... | Health ... | statistics      all 64-byte lines, offsets, no pointers
//!           7 slots + overflow count
//!           slot = tag 16 | cell 28 | stamp 20  ──▶ record: stamp 64, length, counters, key, routes, backends,
//!                                                  automata
//! ```
//!
//! A tool, a redirect and a domain are one record each; a tool and its redirect share a home bucket, so that one line holds
//! both slots. Inserting, replacing and withdrawing a record is one Release store of its slot. A record is immutable while a
//! slot points to it; its cells are reused only afterwards, and a reader that still copies them notices by the stamp, which
//! is unique.
//!
//! A writer killed at any instruction leaves either the old slot or the new one. Cells without a slot are free; the next
//! writer finds them by scanning, see [`Writer::attach`]. `proof.rs` argues why this holds, ordering by ordering (E1 to E6),
//! and model-checks it.
//!
//! `examples/table.rs` uses the table as a library.
#![warn(missing_docs)]

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
mod position;
mod proof;
mod ranking;
mod reader;
mod record;
mod slot;
mod stats;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

#[cfg(not(loom))]
pub use carry::carry_over;
pub use counters::{Counters, StatusClass, Tally};
pub use health::{Availability, Health, HealthKey, HealthSettings};
pub use layout::{Capacity, Header, LayoutError, LoadedFrom, MAX_RECORD_BYTES};
pub use memory::OwnedTable;
pub use ranking::Ranking;
pub use reader::{Lookup, Scratch};
pub use record::{BackendView, HostView, Record, RouteView, Version, backend_bytes, record_bytes, route_bytes};
pub use stats::{
    ANSWER_BYTES, Change, ChangeKind, DURATION_BOUNDS_MILLISECONDS, DurationHistogram, NAME_BYTES, Notes,
    PROPAGATION_BOUNDS_MICROSECONDS, Questions, REASONS, RejectedNote, Reply, RequestResult, ResyncCause, SeriesView,
    SnapshotState, SourceState, SourceView, Ticket, WorkerStats, WorkerTally,
};
pub use writer::{PublishError, Published, Recovered, Writer};

use crate::route::LookupKey;
use layout::{Bucket, Cell};
use stats::Series;

/// A key and its hash in one table.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey<'n> {
    key: LookupKey<'n>,
    hash: u64,
}

impl<'n> HashedKey<'n> {
    /// The key.
    pub fn key(&self) -> LookupKey<'n> {
        self.key
    }

    /// The redirect of the tool whose key this is: no hash is calculated for it. `None` when it can have none.
    #[inline(always)]
    pub fn redirect(&self) -> Option<Self> {
        let key = LookupKey::redirect(self.key.name())?;
        Some(Self { key, hash: self.hash ^ key.mark() })
    }
}

/// A finished request.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// How it was routed.
    pub result: RequestResult,
    /// Of its response.
    pub class: StatusClass,
    /// Bytes sent to the client.
    pub bytes: u64,
    /// Duration.
    pub milliseconds: u64,
}

/// A view of one table, in shared or private memory. Cheap to copy; used by readers and the writer.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    header: &'a Header,
    buckets: &'a [Bucket],
    cells: &'a [Cell],
    counters: &'a [Counters],
    health: Health<'a>,
    source: &'a SourceState,
    workers: &'a [WorkerStats],
    series: &'a [Series],
    notes: Notes<'a>,
    questions: Questions<'a>,
}

impl<'a> Table<'a> {
    /// The table's state: counts, ages, where the routes came from.
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// Failure state of backends, shared by all workers.
    pub fn health(&self) -> Health<'a> {
        self.health
    }

    /// How many lines of each kind the table has.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            buckets: self.buckets.len(),
            cells: self.cells.len(),
            tools: self.counters.len(),
            health: self.health.len(),
            workers: self.workers.len(),
            series: self.series.len(),
            notes: self.notes.len(),
            questions: self.questions.len(),
        }
    }

    /// Most bytes that one record may take.
    pub fn record_limit(&self) -> usize {
        self.capacity().record_limit()
    }

    /// The counters of a record, by [`Record::counters`]. `None` only for an invalid number.
    pub fn counters(&self, number: u32) -> Option<&'a Counters> {
        self.counters.get(number as usize)
    }

    /// The companion's account of itself.
    pub fn source(&self) -> &'a SourceState {
        self.source
    }

    /// Short texts from the companion.
    pub fn notes(&self) -> Notes<'a> {
        self.notes
    }

    /// Questions to the companion.
    pub fn questions(&self) -> Questions<'a> {
        self.questions
    }

    /// The statistics of a worker, by nginx's number of it. `None` only in a table without statistics.
    #[inline]
    pub fn worker(&self, number: usize) -> Option<&'a WorkerStats> {
        // The number of entries is a power of two.
        self.workers.get(number & self.workers.len().wrapping_sub(1))
    }

    /// Forgets the idle connections of workers with this number and above, which are gone. Their totals stay.
    pub fn forget_workers_from(&self, number: usize) {
        self.workers.iter().skip(number).for_each(|worker| worker.set_idle(0));
    }

    /// The sum of all workers' statistics.
    pub fn worker_tally(&self) -> WorkerTally {
        let mut tally = WorkerTally::default();
        self.workers.iter().for_each(|worker| worker.add_to(&mut tally));
        tally
    }

    /// The statistics of the busiest tools and domains.
    pub fn series(&self) -> impl Iterator<Item = SeriesView> + use<'a> {
        self.series.iter().filter_map(Series::read)
    }

    /// Counts a finished request in the statistics of a worker and, if `routed` (the counters of the request's record, and
    /// their [ticket](Counters::ticket)), of its tool or domain.
    #[inline]
    pub fn count_request(&self, worker: usize, request: &Finished, routed: Option<(&Counters, u64)>) {
        let &Finished { result, class, bytes, milliseconds } = request;
        let worker = self.worker(worker);
        if let Some(worker) = worker {
            worker.add(result, class);
        }
        let Some((line, ticket)) = routed else { return };
        let number = line.add(ticket, class, bytes, milliseconds);
        let series = usize::from(number).checked_sub(1).and_then(|at| self.series.get(at));
        if !series.is_some_and(|series| series.add(ticket, class, milliseconds))
            && let Some(worker) = worker
        {
            worker.add_other(class, milliseconds);
        }
    }

    /// A random identifier of this table, as old as its zone. Reveals no key's hash: no key has this text.
    pub fn pseudonym(&self) -> u64 {
        self.hash_name(b"\0pseudonym")
    }

    /// Hashes a key for [`Self::lookup_hashed`].
    #[inline(always)]
    pub fn hash_key<'n>(&self, key: LookupKey<'n>) -> HashedKey<'n> {
        HashedKey { key, hash: self.hash_name(key.name()) ^ key.mark() }
    }

    /// The hash of a key in its stored form.
    fn hash(&self, key: &[u8]) -> u64 {
        self.hash_key(key.into()).hash
    }

    /// Keyed, because tenants choose the names (hash flooding).
    #[inline(always)]
    fn hash_name(&self, name: &[u8]) -> u64 {
        use atomic::Ordering::Relaxed;
        let (k0, k1) = (self.header.hash_key0.load(Relaxed), self.header.hash_key1.load(Relaxed));
        hash::siphash13(k0, k1, name)
    }

    /// The home bucket of a hash.
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The buckets a key may be in, its home first.
    fn probe(&self, hash: u64) -> impl Iterator<Item = (usize, &'a Bucket)> + use<'a> {
        let (buckets, home) = (self.buckets, self.home(hash));
        (0..layout::MAX_PROBES.min(buckets.len())).filter_map(move |step| {
            let at = home + step;
            let at = if at < buckets.len() { at } else { at - buckets.len() };
            buckets.get(at).map(|bucket| (at, bucket))
        })
    }
}
