//! How many of something are under way at once for one key, such as a tenant.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts what is under way, by key.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimiter<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One that is under way; it has ended when this is dropped.
#[derive(Debug)]
pub struct ConcurrencyPermit<K: Eq + Hash> {
    key: K,
    active: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for ConcurrencyLimiter<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash> ConcurrencyLimiter<K> {
    /// Begins one more; `None` while as many as `limit` are under way for the key.
    pub fn try_acquire(&self, key: K, limit: usize) -> Option<ConcurrencyPermit<K>> {
        let mut active = self.0.lock();
        let count = active.get(&key).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        active.insert(key.clone(), count + 1);
        Some(ConcurrencyPermit { key, active: Arc::clone(&self.0) })
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl<K: Eq + Hash> Drop for ConcurrencyPermit<K> {
    fn drop(&mut self) {
        let mut active = self.active.lock();
        if let Some(count) = active.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_so_many_at_once() {
        let limiter = ConcurrencyLimiter::default();
        let two: Vec<_> = (0..2).map(|_| limiter.try_acquire("a", 2).unwrap()).collect();
        assert!(limiter.try_acquire("a", 2).is_none() && limiter.try_acquire("b", 2).is_some());
        drop(two);
        assert!(limiter.is_idle(), "no key is kept");
        assert!(limiter.try_acquire("a", 0).is_none());
        assert!(limiter.try_acquire("a", 1).is_some());
    }
}
