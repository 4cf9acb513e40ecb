//! How often one namespace's Services are told of: anybody may make ten thousand that are no routes, or change one without end,
//! and the log and the Events are everybody's.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// So many at once, of one namespace.
const MOST: u32 = 20;
/// One more after this time.
const REFILL: Duration = Duration::from_secs(30);

/// Fewer entries are not worth a sweep.
const LEAST_SWEPT: usize = 64;

/// Whether something may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It may.
    Yes,
    /// It is the first that may not.
    JustOver,
    /// It may not.
    Over,
}

/// One entry for each namespace that was told something not long ago.
#[derive(Debug, Default)]
pub struct Allowance {
    namespaces: BTreeMap<String, Used>,
    /// Those that have all again are dropped when there are so many.
    sweep_at: usize,
}

#[derive(Debug)]
struct Used {
    /// Since then it is all there again, if nothing more is told.
    full_at: Instant,
    is_over: bool,
}

impl Allowance {
    /// Takes one of what a namespace has left.
    pub fn spend(&mut self, namespace: &str, now: Instant) -> Spent {
        if self.namespaces.len() >= self.sweep_at {
            self.namespaces.retain(|_, used| used.full_at > now);
            self.sweep_at = (self.namespaces.len() * 2).max(LEAST_SWEPT);
        }
        let new = || Used { full_at: now, is_over: false };
        let used = self.namespaces.entry(namespace.to_owned()).or_insert_with(new);
        let full_at = used.full_at.max(now) + REFILL;
        if full_at > now + REFILL * MOST {
            return if std::mem::replace(&mut used.is_over, true) { Spent::Over } else { Spent::JustOver };
        }
        // Not at each single one that may be told again.
        used.is_over &= full_at > now + REFILL * (MOST / 2);
        used.full_at = full_at;
        Spent::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_has_so_many_and_others_theirs() {
        let now = Instant::now();
        let mut allowance = Allowance::default();
        let mut spend = |namespace, now| allowance.spend(namespace, now);
        for _ in 0..MOST {
            assert_eq!(spend("evil", now), Spent::Yes);
        }
        assert_eq!((spend("evil", now), spend("evil", now)), (Spent::JustOver, Spent::Over));
        assert_eq!(spend("hello", now), Spent::Yes);
        let later = now + REFILL;
        assert_eq!((spend("evil", later), spend("evil", later)), (Spent::Yes, Spent::Over), "said once");
        let much_later = now + REFILL * MOST * 2;
        for _ in 0..MOST {
            assert_eq!(spend("evil", much_later), Spent::Yes);
        }
        assert_eq!(spend("evil", much_later), Spent::JustOver);
        let quiet = much_later + REFILL * MOST * 2;
        for number in 0..LEAST_SWEPT * 3 {
            allowance.spend(&number.to_string(), quiet + REFILL * u32::try_from(number).unwrap());
        }
        assert!(allowance.namespaces.len() <= LEAST_SWEPT, "{}", allowance.namespaces.len());
    }
}
