//! Compiled patterns, kept per worker and bounded: a tenant's patterns may cost the tenant time, nobody else memory.

use std::collections::HashMap;

use super::pattern::Automat;

/// Compiled patterns by their text, the least recently used thrown out first.
#[derive(Debug)]
pub struct PatternCache {
    entries: HashMap<Box<str>, Entry>,
    bytes: usize,
    max_bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// `None` remembers that the text does not compile.
    automat: Option<Automat>,
    bytes: usize,
    last_used: u64,
}

/// What an entry takes beside its automat and its text, about.
const ENTRY_BYTES: usize = 128;

impl PatternCache {
    /// Memory a worker spends on compiled patterns: room for thousands of usual ones, of a few KiB each.
    pub const DEFAULT_BYTES: usize = 16 << 20;

    /// An empty cache that keeps at most `max_bytes`, but for the pattern in use.
    pub fn new(max_bytes: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, max_bytes, clock: 0 }
    }

    /// Whether the pattern is found in `rest`. What doesn't compile is found nowhere.
    pub fn is_match(&mut self, pattern: &str, rest: &[u8]) -> bool {
        self.clock += 1;
        let clock = self.clock;
        if let Some(entry) = self.entries.get_mut(pattern) {
            entry.last_used = clock;
            return entry.automat.as_ref().is_some_and(|a| a.is_match(rest));
        }
        let automat = Automat::compile(pattern);
        let matched = automat.as_ref().is_some_and(|a| a.is_match(rest));
        let bytes = ENTRY_BYTES + pattern.len() + automat.as_ref().map_or(0, Automat::memory_usage);
        self.entries.insert(pattern.into(), Entry { automat, bytes, last_used: clock });
        self.bytes += bytes;
        if self.bytes > self.max_bytes {
            self.forget_oldest();
        }
        matched
    }

    /// Drops the older half, so that the scan is paid once in many misses.
    fn forget_oldest(&mut self) {
        let mut ages: Vec<u64> = self.entries.values().map(|e| e.last_used).collect();
        let middle = ages.len() / 2;
        let (_, &mut median, _) = ages.select_nth_unstable(middle);
        self.entries.retain(|_, e| e.last_used > median);
        self.bytes = self.entries.values().map(|e| e.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let mut cache = PatternCache::new(20_000);
        for i in 0..100 {
            assert!(cache.is_match(&format!("^/{i}[0-9]"), format!("/{i}7").as_bytes()), "{i}");
            assert!(cache.is_match("^/kept[0-9]", b"/kept1"));
            assert!(cache.bytes <= 20_000 && cache.entries.len() >= 2, "{}", cache.bytes);
        }
        assert!(cache.entries.contains_key("^/kept[0-9]"));
    }

    #[test]
    fn what_does_not_compile_matches_nothing() {
        let mut cache = PatternCache::new(20_000);
        assert!(!cache.is_match("(", b"/("));
        assert!(!cache.is_match("(", b"/("));
    }
}
