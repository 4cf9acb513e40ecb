//! Compiled patterns, kept per worker and bounded: a tenant's patterns may cost the tenant time, nobody else memory.

use std::collections::HashMap;

use regex::bytes::Regex;

use super::pattern::compile;

/// Compiled regular expressions by their text, the least recently used thrown out first.
#[derive(Debug)]
pub struct PatternCache {
    entries: HashMap<Box<str>, Entry>,
    capacity: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// `None` remembers that the text does not compile.
    regex: Option<Regex>,
    last_used: u64,
}

impl PatternCache {
    /// Most compiled patterns a worker keeps; each takes at most about half a MiB, normally a few KiB.
    pub const DEFAULT_CAPACITY: usize = 512;

    /// An empty cache.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1), clock: 0 }
    }

    /// Whether the pattern is found in `rest`. What doesn't compile is found nowhere.
    pub fn is_match(&mut self, pattern: &str, rest: &[u8]) -> bool {
        self.clock += 1;
        let clock = self.clock;
        if let Some(entry) = self.entries.get_mut(pattern) {
            entry.last_used = clock;
            return entry.regex.as_ref().is_some_and(|r| r.is_match(rest));
        }
        if self.entries.len() >= self.capacity {
            self.forget_oldest();
        }
        let regex = compile(pattern).ok();
        let matched = regex.as_ref().is_some_and(|r| r.is_match(rest));
        self.entries.insert(pattern.into(), Entry { regex, last_used: clock });
        matched
    }

    /// Drops the older half, so that the scan is paid once in many misses.
    fn forget_oldest(&mut self) {
        let mut ages: Vec<u64> = self.entries.values().map(|e| e.last_used).collect();
        let middle = ages.len() / 2;
        let (_, &mut median, _) = ages.select_nth_unstable(middle);
        self.entries.retain(|_, e| e.last_used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let mut cache = PatternCache::new(8);
        for i in 0..100 {
            assert!(cache.is_match(&format!("^/{i}[0-9]"), format!("/{i}7").as_bytes()), "{i}");
            assert!(cache.is_match("^/kept[0-9]", b"/kept1"));
            assert!(cache.entries.len() <= 8);
        }
        assert!(cache.entries.contains_key("^/kept[0-9]"));
    }

    #[test]
    fn what_does_not_compile_matches_nothing() {
        let mut cache = PatternCache::new(8);
        assert!(!cache.is_match("(", b"/("));
        assert!(!cache.is_match("(", b"/("));
    }
}
