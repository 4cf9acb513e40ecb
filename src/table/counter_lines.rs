//! The writer's private free list of counter lines; the next writer rebuilds it by scanning.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Table;

/// Free counter lines and their last owners: a tool that returns gets its old line.
#[derive(Debug, Default)]
pub(super) struct CounterLines {
    never_used: u32,
    /// Oldest first. An entry is valid only while `former` has it: a tool that returns leaves its entry behind.
    released: VecDeque<u32>,
    former: HashMap<u64, u32>,
}

impl CounterLines {
    pub fn scan(table: &Table<'_>, owned: &HashSet<u32>) -> Self {
        let mut lines = Self::default();
        for (number, line) in (0u32..).zip(table.counters) {
            let owner = line.owner();
            if owner != 0 {
                lines.never_used = number + 1;
                if !owned.contains(&number) {
                    lines.released.push_back(number);
                    lines.former.insert(owner, number);
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
        if let Some(number) = self.former.remove(&owner) {
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
            let number = self.released.pop_front()?;
            let owner = table.counters.get(number as usize)?.owner();
            if self.former.get(&owner) == Some(&number) {
                self.former.remove(&owner);
                return Some(number);
            }
        }
    }

    pub fn release(&mut self, number: u32, hash: u64) {
        self.released.push_back(number);
        self.former.insert(hash.max(1), number);
        if self.released.len() > 2 * self.former.len() + 64 {
            let free: HashSet<u32> = self.former.values().copied().collect();
            let mut kept = HashSet::new();
            self.released.retain(|number| free.contains(number) && kept.insert(*number));
        }
    }
}
