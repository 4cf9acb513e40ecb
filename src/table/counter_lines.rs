//! The writer's private free list of counter lines; the next writer rebuilds it by scanning.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Table;

/// The number of a released line, and that of its release.
type Released = (u32, u64);

/// Free counter lines and their last owners: a tool that returns gets its old line.
#[derive(Debug, Default)]
pub(super) struct CounterLines {
    never_used: u32,
    releases: u64,
    /// Oldest first. An entry is valid only while `former` has it: a tool that returns leaves its entry behind.
    released: VecDeque<Released>,
    former: HashMap<u64, Released>,
}

impl CounterLines {
    pub fn scan(table: &Table<'_>, owned: &HashSet<u32>) -> Self {
        let mut lines = Self::default();
        for (number, line) in (0u32..).zip(table.counters) {
            let owner = line.owner();
            if owner != 0 {
                lines.never_used = number + 1;
                if !owned.contains(&number) {
                    lines.add(number, owner);
                }
            } else if owned.contains(&number) {
                lines.never_used = number + 1;
            }
        }
        // Lines are taken in order, so none below the highest used one is unused.
        lines
    }

    pub fn take(&mut self, table: &Table<'_>, hash: u64) -> Option<u32> {
        let owner = hash.max(1);
        if let Some((number, _)) = self.former.remove(&owner) {
            return Some(number);
        }
        let number = if (self.never_used as usize) < table.counters.len() {
            self.never_used += 1;
            self.never_used - 1
        } else {
            self.oldest(table)?
        };
        table.counters.get(number as usize)?.assign(owner);
        Some(number)
    }

    fn oldest(&mut self, table: &Table<'_>) -> Option<u32> {
        loop {
            let entry = self.released.pop_front()?;
            let (number, _) = entry;
            let owner = table.counters.get(number as usize)?.owner();
            if self.former.get(&owner) == Some(&entry) {
                self.former.remove(&owner);
                return Some(number);
            }
        }
    }

    pub fn release(&mut self, number: u32, hash: u64) {
        self.add(number, hash.max(1));
        if self.released.len() > 2 * self.former.len() + 64 {
            let valid: HashSet<Released> = self.former.values().copied().collect();
            self.released.retain(|entry| valid.contains(entry));
        }
    }

    fn add(&mut self, number: u32, owner: u64) {
        self.releases += 1;
        let entry = (number, self.releases);
        self.released.push_back(entry);
        self.former.insert(owner, entry);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::{Capacity, OwnedTable};

    const CAPACITY: Capacity = Capacity { tools: 3, ..Capacity::NONE };

    #[test]
    fn the_line_that_is_free_for_longest_is_reassigned_first() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let mut lines = CounterLines::default();
        assert_eq!([7, 8, 9].map(|tool| lines.take(&table, tool)), [Some(0), Some(1), Some(2)]);
        [(0, 7), (1, 8), (2, 9)].into_iter().for_each(|(line, tool)| lines.release(line, tool));
        // The first tool returns and goes again.
        assert_eq!(lines.take(&table, 7), Some(0));
        lines.release(0, 7);
        assert_eq!([10, 11, 12, 13].map(|tool| lines.take(&table, tool)), [Some(1), Some(2), Some(0), None]);
    }

    #[test]
    fn a_tool_that_comes_and_goes_takes_no_more_memory() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        let mut lines = CounterLines::default();
        assert_eq!([7, 8, 9].map(|tool| lines.take(&table, tool)), [Some(0), Some(1), Some(2)]);
        [(1, 8), (2, 9)].into_iter().for_each(|(line, tool)| lines.release(line, tool));
        let mut most = 0;
        for _ in 0..1000 {
            lines.release(0, 7);
            most = most.max(lines.released.len());
            assert_eq!(lines.take(&table, 7), Some(0));
        }
        assert_eq!(most, 2 * 3 + 64);
        lines.release(0, 7);
        assert_eq!([10, 11, 12].map(|tool| lines.take(&table, tool)), [Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn a_line_in_use_is_not_assigned_even_if_it_lost_its_owner() {
        let owned = OwnedTable::new(CAPACITY);
        let table = owned.table();
        table.counters[0].assign(7);
        let mut lines = CounterLines::scan(&table, &HashSet::from([0, 1]));
        assert_eq!([10, 11].map(|tool| lines.take(&table, tool)), [Some(2), None]);
    }
}
