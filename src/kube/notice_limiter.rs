//! Limits the log lines and Events about rejected Services per namespace: a tenant can create thousands of Services or change
//! one continuously, and all tenants share the log and the Events.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Notices that one namespace can cause at once.
const BURST: u32 = 20;
/// The time after which a namespace may cause one more.
const REFILL: Duration = Duration::from_secs(30);

/// The smallest number of entries at which idle ones are dropped.
const MIN_SWEEP: usize = 64;

/// What a namespace has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// The notice is allowed.
    Available,
    /// The notice is the first one denied.
    JustExhausted,
    /// The notice is denied, as were others before it.
    Exhausted,
}

/// A token bucket for each namespace that caused a notice recently.
#[derive(Debug, Default)]
pub struct NoticeLimiter {
    namespaces: BTreeMap<String, Bucket>,
    /// The number of entries at which full buckets are dropped.
    sweep_at: usize,
}

#[derive(Debug)]
struct Bucket {
    /// When the bucket is full again, if no more notices come.
    full_at: Instant,
    is_exhausted: bool,
}

impl NoticeLimiter {
    /// Takes one notice from a namespace's quota.
    pub fn acquire(&mut self, namespace: &str, now: Instant) -> Quota {
        if self.namespaces.len() >= self.sweep_at {
            self.namespaces.retain(|_, bucket| bucket.full_at > now);
            self.sweep_at = (self.namespaces.len() * 2).max(MIN_SWEEP);
        }
        let new = || Bucket { full_at: now, is_exhausted: false };
        let bucket = self.namespaces.entry(namespace.to_owned()).or_insert_with(new);
        let full_at = bucket.full_at.max(now) + REFILL;
        if full_at > now + REFILL * BURST {
            return if std::mem::replace(&mut bucket.is_exhausted, true) {
                Quota::Exhausted
            } else {
                Quota::JustExhausted
            };
        }
        // Reset only at half of the burst: one refill must not cause another `JustExhausted`.
        bucket.is_exhausted &= full_at > now + REFILL * (BURST / 2);
        bucket.full_at = full_at;
        Quota::Available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_its_own_quota() {
        let now = Instant::now();
        let mut limiter = NoticeLimiter::default();
        let mut acquire = |namespace, now| limiter.acquire(namespace, now);
        for _ in 0..BURST {
            assert_eq!(acquire("evil", now), Quota::Available);
        }
        assert_eq!((acquire("evil", now), acquire("evil", now)), (Quota::JustExhausted, Quota::Exhausted));
        assert_eq!(acquire("hello", now), Quota::Available);
        let later = now + REFILL;
        assert_eq!(
            (acquire("evil", later), acquire("evil", later)),
            (Quota::Available, Quota::Exhausted),
            "reported once"
        );
        let much_later = now + REFILL * BURST * 2;
        for _ in 0..BURST {
            assert_eq!(acquire("evil", much_later), Quota::Available);
        }
        assert_eq!(acquire("evil", much_later), Quota::JustExhausted);
        let quiet = much_later + REFILL * BURST * 2;
        for number in 0..MIN_SWEEP * 3 {
            limiter.acquire(&number.to_string(), quiet + REFILL * u32::try_from(number).unwrap());
        }
        assert!(limiter.namespaces.len() <= MIN_SWEEP, "{}", limiter.namespaces.len());
    }
}
