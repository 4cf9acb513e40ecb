//! Limits how many operations run at once for one key, such as a tenant.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts active operations by key.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimiter<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One active operation; dropping it ends the operation.
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
    /// Starts an operation; `None` while `limit` operations of the key are active.
    pub fn try_acquire(&self, key: K, limit: usize) -> Option<ConcurrencyPermit<K>> {
        let mut active = self.0.lock();
        let count = active.get(&key).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        active.insert(key.clone(), count + 1);
        Some(ConcurrencyPermit { key, active: Arc::clone(&self.0) })
    }

    /// Whether no operation is active.
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
    fn each_key_has_its_own_limit() {
        let limiter = ConcurrencyLimiter::default();
        let two: Vec<_> = (0..2).map(|_| limiter.try_acquire("a", 2).unwrap()).collect();
        assert!(limiter.try_acquire("a", 2).is_none() && limiter.try_acquire("b", 2).is_some());
        drop(two);
        assert!(limiter.is_idle(), "idle keys are removed");
        assert!(limiter.try_acquire("a", 0).is_none());
        assert!(limiter.try_acquire("a", 1).is_some());
    }
}
