//! A hash table that assigns each key a number, stable until the key is removed.

use std::hash::{BuildHasher, RandomState};
use std::ops::{Index as At, IndexMut};

/// No number: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Random seeds: clients cannot predict hashes or cause collisions.
#[derive(Debug)]
pub(super) struct Seeds([u64; 2]);

impl Seeds {
    fn new() -> Self {
        let random = RandomState::new();
        Self([1, 2].map(|number| random.hash_one(number)))
    }

    /// Mixes two words: folds the halves of their product.
    #[inline(always)]
    pub fn mix(&self, one: u64, other: u64) -> u64 {
        let product = u128::from(one ^ self.0[0]) * u128::from(other ^ self.0[1]);
        product as u64 ^ (product >> 64) as u64
    }
}

pub(super) trait Hashed: PartialEq {
    fn hash(&self, seeds: &Seeds) -> u64;
}

/// Keys with their values. Keys in the same bucket are linked.
#[derive(Debug)]
pub(super) struct Index<K, V> {
    /// The first number in each bucket.
    buckets: Box<[u32]>,
    slots: Vec<Slot<K, V>>,
    /// Unused slots, linked by [`Slot::next`].
    free: u32,
    seeds: Seeds,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    bucket: u32,
    next: u32,
}

impl<K: Hashed, V> Index<K, V> {
    /// Sized for about `keys` keys.
    pub fn new(keys: usize) -> Self {
        let buckets = vec![NONE; keys.next_power_of_two()].into();
        Self { buckets, slots: Vec::new(), free: NONE, seeds: Seeds::new() }
    }

    #[inline(always)]
    fn bucket(&self, key: &K) -> u32 {
        key.hash(&self.seeds) as u32 & (self.buckets.len() as u32 - 1)
    }

    #[inline(always)]
    pub fn find(&self, key: &K) -> Option<u32> {
        let mut number = self.buckets[self.bucket(key) as usize];
        while let Some(slot) = self.slots.get(number as usize) {
            if slot.key == *key {
                return Some(number);
            }
            number = slot.next;
        }
        None
    }

    /// Adds a key that is not present.
    pub fn add(&mut self, key: K, value: V) -> u32 {
        let bucket = self.bucket(&key);
        let first = &mut self.buckets[bucket as usize];
        let slot = Slot { key, value, bucket, next: *first };
        let number = match self.slots.get_mut(self.free as usize) {
            Some(free) => {
                let number = self.free;
                self.free = free.next;
                *free = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        *first = number;
        number
    }

    /// Removes the key of a number in use.
    pub fn remove(&mut self, number: u32) {
        let Slot { bucket, next, .. } = self.slots[number as usize];
        let first = &mut self.buckets[bucket as usize];
        if *first == number {
            *first = next;
        } else {
            let mut before = *first;
            while self.slots[before as usize].next != number {
                before = self.slots[before as usize].next;
            }
            self.slots[before as usize].next = next;
        }
        self.slots[number as usize].next = self.free;
        self.free = number;
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|first| *first == NONE)
    }

    /// The peak number of keys.
    #[cfg(test)]
    pub fn max_keys(&self) -> usize {
        self.slots.len()
    }
}

impl<K, V> At<u32> for Index<K, V> {
    type Output = V;

    #[inline(always)]
    fn index(&self, number: u32) -> &V {
        &self.slots[number as usize].value
    }
}

impl<K, V> IndexMut<u32> for Index<K, V> {
    #[inline(always)]
    fn index_mut(&mut self, number: u32) -> &mut V {
        &mut self.slots[number as usize].value
    }
}
