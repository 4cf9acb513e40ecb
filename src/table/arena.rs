//! The writer's private free list of cells; the next writer rebuilds it by scanning.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Freed extents that are not reused yet, so that a reader in the middle of one can finish.
const QUARANTINE: usize = 64;

/// Free extents of cells: best fit, adjacent extents merged.
#[derive(Debug)]
pub(super) struct Arena {
    by_start: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
    quarantine: VecDeque<(u32, u32)>,
    live: u64,
    free: u64,
}

impl Arena {
    /// All cells from 1 on are free except the `live` extents (start, length), given in any order.
    pub fn new(cells: u32, mut live: Vec<(u32, u32)>) -> Self {
        live.sort_unstable();
        let mut arena =
            Self { by_start: BTreeMap::new(), by_len: BTreeSet::new(), quarantine: VecDeque::new(), live: 0, free: 0 };
        let mut at = 1;
        for (start, len) in live {
            arena.insert(at, start.saturating_sub(at));
            at = at.max(start.saturating_add(len));
            arena.live += u64::from(len);
        }
        arena.insert(at, cells.saturating_sub(at));
        arena.free = u64::from(cells.saturating_sub(1)).saturating_sub(arena.live);
        arena
    }

    /// Cells in use.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Cells in the longest free run, without quarantined ones.
    pub fn longest_run(&self) -> u64 {
        self.by_len.last().map_or(0, |&(len, _)| len.into())
    }

    /// Allocates `len` adjacent cells if at least `reserve` stay free.
    pub fn alloc(&mut self, len: u32, reserve: u64) -> Option<u32> {
        if self.free < u64::from(len) + reserve {
            return None;
        }
        let start = self.take(len).or_else(|| {
            while let Some((start, len)) = self.quarantine.pop_front() {
                self.join(start, len);
            }
            self.take(len)
        })?;
        self.live += u64::from(len);
        self.free = self.free.saturating_sub(len.into());
        Some(start)
    }

    pub fn free(&mut self, start: u32, len: u32) {
        self.live = self.live.saturating_sub(len.into());
        self.free += u64::from(len);
        self.quarantine.push_back((start, len));
        if self.quarantine.len() > QUARANTINE
            && let Some((start, len)) = self.quarantine.pop_front()
        {
            self.join(start, len);
        }
    }

    fn take(&mut self, len: u32) -> Option<u32> {
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.remove(start, found);
        self.insert(start + len, found - len);
        Some(start)
    }

    fn join(&mut self, mut start: u32, mut len: u32) {
        if let Some((&before, &before_len)) = self.by_start.range(..start).next_back()
            && before + before_len == start
        {
            self.remove(before, before_len);
            (start, len) = (before, before_len + len);
        }
        if let Some(&after_len) = self.by_start.get(&(start + len)) {
            self.remove(start + len, after_len);
            len += after_len;
        }
        self.insert(start, len);
    }

    fn insert(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.by_start.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    fn remove(&mut self, start: u32, len: u32) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn freed_cells_merge() {
        let mut arena = Arena::new(101, vec![]);
        let starts: Vec<_> = (0..10).map(|_| arena.alloc(10, 0).unwrap()).collect();
        assert_eq!(arena.alloc(1, 0), None);
        starts.into_iter().for_each(|s| arena.free(s, 10));
        assert_eq!((arena.alloc(100, 0), arena.live()), (Some(1), 100));
    }

    #[test]
    fn gaps_between_live_extents_are_free() {
        let mut arena = Arena::new(20, vec![(10, 2), (3, 1)]);
        assert_eq!(arena.alloc(8, 0), Some(12));
        assert_eq!(arena.alloc(6, 0), Some(4));
        assert_eq!(arena.alloc(2, 0), Some(1));
        assert_eq!((arena.alloc(1, 0), arena.live()), (None, 19));
    }

    #[test]
    fn the_reserve_is_kept() {
        let mut arena = Arena::new(11, vec![(1, 2)]);
        assert_eq!((arena.alloc(5, 4), arena.alloc(4, 4)), (None, Some(3)));
        assert_eq!((arena.alloc(1, 4), arena.longest_run()), (None, 4));
        assert_eq!(arena.alloc(4, 0), Some(7));
        arena.free(3, 4);
        assert_eq!((arena.alloc(1, 4), arena.alloc(1, 3)), (None, Some(3)));
    }

    #[test]
    fn freed_cells_rest_until_others_were_freed() {
        let mut arena = Arena::new(1001, vec![]);
        let starts: Vec<_> = (0..100).map(|_| arena.alloc(10, 0).unwrap()).collect();
        for (freed, start) in (1..).zip(starts) {
            arena.free(start, 10);
            assert_eq!(arena.longest_run(), 10 * u64::saturating_sub(freed, QUARANTINE as u64), "{freed} freed");
        }
    }

    proptest! {
        #[test]
        fn extents_never_overlap(sizes in proptest::collection::vec((1u32..9, any::<bool>()), 1..200)) {
            let mut arena = Arena::new(128, vec![]);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (len, free_one) in sizes {
                if free_one && !held.is_empty() {
                    let (start, len) = held.remove(held.len() / 2);
                    arena.free(start, len);
                } else if let Some(start) = arena.alloc(len, 0) {
                    prop_assert!(start >= 1 && start + len <= 128);
                    prop_assert!(held.iter().all(|&(s, l)| start + len <= s || s + l <= start));
                    held.push((start, len));
                }
                prop_assert_eq!(arena.live(), held.iter().map(|&(_, l)| u64::from(l)).sum::<u64>());
                let by_len = arena.by_start.iter().map(|(&start, &len)| (len, start)).collect();
                prop_assert_eq!(&arena.by_len, &by_len);
                prop_assert!(by_len.first().is_none_or(|&(len, _)| len > 0));
            }
        }
    }
}
