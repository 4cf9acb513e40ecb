//! Digests of values that were parsed before, so that a scan skips unchanged ones.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::registry::RawRoutes;

/// Most digests kept.
const MAX_ENTRIES: usize = 8192;
/// Digests are dropped after this many scans: whether an address is this machine's own may change.
const MAX_SCANS: u32 = 10;

/// Digests of parsed values, by key.
#[derive(Debug, Default)]
pub(super) struct DigestCache {
    hasher: RandomState,
    /// The value's digest, and whether the value gave a record.
    by_key: HashMap<Box<[u8]>, (u64, bool)>,
    scans: u32,
}

impl DigestCache {
    /// A keyed hash of a value.
    pub(super) fn digest(&self, raw: &RawRoutes<'_>) -> u64 {
        match raw {
            RawRoutes::Hash(fields) => self.hasher.hash_one((1u8, fields)),
            RawRoutes::Set(members) => self.hasher.hash_one((2u8, members)),
        }
    }

    /// A scan begins.
    pub(super) fn age(&mut self) {
        self.scans += 1;
        if self.scans >= MAX_SCANS {
            self.scans = 0;
            self.by_key.clear();
        }
    }

    /// Remembers a parsed value.
    pub(super) fn note(&mut self, key: &[u8], digest: u64, has_record: bool) {
        if self.by_key.len() >= MAX_ENTRIES {
            self.by_key.clear();
        }
        self.by_key.insert(key.into(), (digest, has_record));
    }

    /// Whether the key's value gave a record, if the value is unchanged.
    pub(super) fn has_record(&self, key: &[u8], digest: u64) -> Option<bool> {
        self.by_key.get(key).filter(|(known, _)| *known == digest).map(|(_, has_record)| *has_record)
    }

    /// The key's next value must be parsed.
    pub(super) fn forget(&mut self, key: &[u8]) {
        self.by_key.remove(key);
    }
}
