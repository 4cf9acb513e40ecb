//! One word of the index: the cells of a record and the low bits of its stamp.

/// Bits of the hash, to skip other keys in a bucket without reading their records.
const TAG_BITS: u32 = 16;
/// Bits of a cell number, for 16 GiB of records.
pub(super) const CELL_BITS: u32 = 28;
/// Low bits of the record's stamp.
const STAMP_BITS: u32 = 20;

const _: () = assert!(TAG_BITS + CELL_BITS + STAMP_BITS == 64);

/// `tag 16 | cell 28 | stamp 20`, from the highest bit. Cell 0 is never used, so the word 0 means empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub u64);

impl Slot {
    pub fn new(hash: u64, cell: u32, stamp: u64) -> Self {
        let cell = u64::from(cell) & mask(CELL_BITS);
        Self(u64::from(tag(hash)) << (CELL_BITS + STAMP_BITS) | cell << STAMP_BITS | stamp & mask(STAMP_BITS))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn cell(self) -> u32 {
        (self.0 >> STAMP_BITS & mask(CELL_BITS)) as u32
    }

    /// Whether the record may belong to the key with this hash.
    pub fn has_tag(self, hash: u64) -> bool {
        (self.0 >> (CELL_BITS + STAMP_BITS)) as u16 == tag(hash)
    }

    /// Whether a record with this stamp may be the one published here.
    pub fn has_stamp(self, stamp: u64) -> bool {
        (self.0 ^ stamp) & mask(STAMP_BITS) == 0
    }
}

/// The low bits; the high bits choose the home bucket.
fn tag(hash: u64) -> u16 {
    hash as u16
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip() {
        let slot = Slot::new(0xdead_beef_0000_1234, (1 << CELL_BITS) - 1, 0xf_ffff_fff1);
        assert_eq!(slot.cell(), (1 << CELL_BITS) - 1);
        assert!(slot.has_tag(0x1234) && !slot.has_tag(0x1235));
        assert!(slot.has_stamp(0xf_fff1) && slot.has_stamp(0xaf_fff1) && !slot.has_stamp(0xf_fff2));
        assert!(!slot.is_empty() && Slot(0).is_empty());
    }
}
