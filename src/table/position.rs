//! The position of a slot in the index.

use super::layout::SLOTS;

/// A bucket, and a slot in it.
#[derive(Clone, Copy)]
pub(super) struct SlotPosition {
    pub bucket: usize,
    pub slot: usize,
}

impl SlotPosition {
    /// Counted from the table's first slot.
    pub fn number(self) -> usize {
        self.bucket * SLOTS + self.slot
    }
}
