//! A response body made in short steps, so that a worker serves other requests in between.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::table::{Record, Scratch, Table};

/// A step ends once the part of the body that is not sent yet has this size.
pub const CHUNK_BYTES: usize = 32 << 10;
/// Maximum cost of one step: bytes of the records it reads, and [`SLOT_COST`] for each slot. Takes about a millisecond.
const STEP_COST: usize = 256 << 10;
/// Cost of a slot, with or without a record: one line of memory.
const SLOT_COST: usize = 64;

/// Whether a body is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next step continues.
    More,
    /// The next step continues after some milliseconds: the page waits for something.
    Pause,
    /// The body is complete.
    Done,
}

/// A response body made in steps.
pub trait Page {
    /// Appends the next part of the body to `out`, perhaps nothing. One step takes at most a millisecond or two, and stops
    /// when `out` has [`CHUNK_BYTES`] or more. `out` may hold the unsent parts of earlier steps. Not called again after
    /// [`Step::Done`].
    fn step(&mut self, table: &Table<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Step;

    /// The length of the whole body in bytes, if known before the first step.
    fn known_length(&self) -> Option<usize> {
        None
    }

    /// Gives back what the page holds in the table. Called at the end of each request: the client may be gone before
    /// [`Step::Done`].
    fn release(&mut self, _: &Table<'_>) {}
}

impl Page for Box<dyn Page> {
    fn step(&mut self, table: &Table<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Step {
        self.as_mut().step(table, scratch, out)
    }

    fn known_length(&self) -> Option<usize> {
        self.as_ref().known_length()
    }

    fn release(&mut self, table: &Table<'_>) {
        self.as_mut().release(table);
    }
}

/// A body that exists before its first step.
#[derive(Debug)]
pub struct Whole {
    bytes: Cow<'static, [u8]>,
    sent: usize,
}

impl Whole {
    /// A page with this text.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { bytes, sent: 0 }
    }
}

impl Page for Whole {
    fn step(&mut self, _: &Table<'_>, _: &mut Scratch, out: &mut Vec<u8>) -> Step {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        let now = rest.get(..CHUNK_BYTES).unwrap_or(rest);
        out.extend_from_slice(now);
        self.sent += now.len();
        if now.len() == rest.len() { Step::Done } else { Step::More }
    }

    fn known_length(&self) -> Option<usize> {
        Some(self.bytes.len())
    }
}

/// A scan of all records that is continued in each step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// The next slot.
    next: usize,
}

impl Scan {
    /// A scan that begins at a slot, see [`Scan::position`].
    pub fn starting_at(slot: usize) -> Self {
        Self { next: slot }
    }

    /// The next slot. Inside the callback of [`Scan::step`] it would be the slot after the record's.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Calls `f` with the next records, until it returns `Break` or the step has taken long enough. [`Step::Done`] at the end
    /// of the table. `f` may write to the body: it returns `Break` when the chunk is full.
    pub fn step(
        &mut self,
        table: &Table<'_>,
        scratch: &mut Scratch,
        mut f: impl FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Step {
        let (slots, mut cost) = (table.slots(), 0);
        while self.next < slots && cost < STEP_COST {
            let mut flow = ControlFlow::Continue(());
            table.for_each_in(self.next..self.next + 1, scratch, |record| {
                cost += record.byte_len();
                flow = f(record);
            });
            cost += SLOT_COST;
            self.next += 1;
            if flow.is_break() {
                break;
            }
        }
        if self.next < slots { Step::More } else { Step::Done }
    }
}

/// `Break` if the chunk is full.
pub fn unless_full(out: &[u8]) -> ControlFlow<()> {
    if out.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
