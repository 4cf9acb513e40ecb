//! Values that a comparison knows from an earlier one, and does not read again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::registry::RawRoutes;

/// Values that are recognised, and for how many comparisons: what an address is to this machine may change.
const MAX_RECOGNISED: usize = 8192;
const RECOGNISED_FOR: u32 = 10;

/// Values that need not be read again, by key.
#[derive(Debug, Default)]
pub(super) struct Recognised {
    hasher: RandomState,
    /// What the value was, and whether it gave a record.
    by_key: HashMap<Box<[u8]>, (u64, bool)>,
    comparisons: u32,
}

impl Recognised {
    /// What stands for a value.
    pub(super) fn digest(&self, raw: &RawRoutes<'_>) -> u64 {
        match raw {
            RawRoutes::Hash(fields) => self.hasher.hash_one((1u8, fields)),
            RawRoutes::Set(members) => self.hasher.hash_one((2u8, members)),
        }
    }

    /// Another comparison begins.
    pub(super) fn age(&mut self) {
        self.comparisons += 1;
        if self.comparisons >= RECOGNISED_FOR {
            self.comparisons = 0;
            self.by_key.clear();
        }
    }

    /// What came of a value.
    pub(super) fn note(&mut self, key: &[u8], digest: u64, has_record: bool) {
        if self.by_key.len() >= MAX_RECOGNISED {
            self.by_key.clear();
        }
        self.by_key.insert(key.into(), (digest, has_record));
    }

    /// What came of the key's value, if it is this one.
    pub(super) fn has_record(&self, key: &[u8], digest: u64) -> Option<bool> {
        self.by_key.get(key).filter(|(known, _)| *known == digest).map(|(_, has_record)| *has_record)
    }

    /// The key's value has to be read again.
    pub(super) fn forget(&mut self, key: &[u8]) {
        self.by_key.remove(key);
    }
}
