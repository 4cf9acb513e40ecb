//! Examples for the pool, and a comparison with a simple model.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { total: 4, per_backend: 2, per_owner: 3 };

fn key(port: u16, owner: u64) -> Key {
    Key::new(&([10, 0, 0, 1], port).into(), owner, 0)
}

/// The slot and the evicted connection.
fn outcome(kept: KeepOutcome<'_, u32>) -> (Option<u32>, Option<u32>) {
    match kept {
        KeepOutcome::Kept { slot, evicted, .. } => (Some(slot), evicted),
        KeepOutcome::Rejected(_) => (None, None),
    }
}

fn keep(pool: &mut IdleConnections<u32>, key: &Key, connection: u32) -> Option<u32> {
    let (slot, evicted) = outcome(pool.keep(key, None, connection, connection.into()));
    assert!(slot.is_some(), "{connection}");
    evicted
}

fn take(pool: &mut IdleConnections<u32>, key: &Key) -> Option<u32> {
    let (connection, handle) = pool.take(key, |_, _| true)?;
    pool.release(handle);
    Some(connection)
}

#[test]
fn newest_connection_of_the_same_key_is_taken() {
    let mut pool = IdleConnections::new(LIMITS);
    keep(&mut pool, &key(1, 7), 1);
    keep(&mut pool, &key(1, 7), 2);
    let v6 = |last| Key::new(&([0, 0, 0, 0, 0, 0, last, 1], 1).into(), 7, 0);
    keep(&mut pool, &v6(1), 3);
    let same_address = Key::new(&([10, 0, 0, 1], 1).into(), 7, 1);
    for other in [key(2, 7), key(1, 8), key(1, 0), same_address, v6(2)] {
        assert_eq!(take(&mut pool, &other), None, "{other:?}");
    }
    assert_eq!(take(&mut pool, &v6(1)), Some(3));
    assert_eq!([(); 3].map(|()| take(&mut pool, &key(1, 7))), [Some(2), Some(1), None]);
    assert_eq!(pool.count, 0);
}

#[test]
fn unfit_connection_stays() {
    let mut pool = IdleConnections::new(LIMITS);
    keep(&mut pool, &key(1, 7), 1);
    keep(&mut pool, &key(1, 7), 2);
    assert_eq!(pool.take(&key(1, 7), |_, since| since < 2).map(|(c, _)| c), Some(1));
    assert!(pool.take(&key(1, 7), |_, since| since < 2).is_none());
    assert_eq!(pool.count, 1);
}

#[test]
fn full_backend_evicts_its_own_oldest() {
    let mut pool = IdleConnections::new(LIMITS);
    keep(&mut pool, &key(9, 9), 1);
    assert_eq!([2, 3, 4].map(|c| keep(&mut pool, &key(1, 7), c)), [None, None, Some(2)]);
    assert_eq!(pool.count, 3);
}

#[test]
fn full_pool_evicts_the_least_recently_used() {
    let mut pool = IdleConnections::new(LIMITS);
    let kept = [1, 2, 3, 4, 5].map(|c| keep(&mut pool, &key(c as u16, c.into()), c));
    assert_eq!(kept, [None, None, None, None, Some(1)]);
    // A reused connection becomes the newest.
    assert_eq!(take(&mut pool, &key(2, 2)), Some(2));
    keep(&mut pool, &key(2, 2), 2);
    assert_eq!(keep(&mut pool, &key(6, 6), 6), Some(3));
    assert_eq!(pool.count, 4);
}

#[test]
fn owner_cannot_exceed_its_limit() {
    let mut pool = IdleConnections::new(LIMITS);
    for c in 1..=3 {
        keep(&mut pool, &key(c as u16, 7), c);
    }
    assert_eq!(pool.keep(&key(4, 7), None, 4, 4), KeepOutcome::Rejected(4));
    // Shared connections have no such limit.
    let mut pool = IdleConnections::new(LIMITS);
    assert_eq!([1, 2, 3, 4].map(|c| keep(&mut pool, &key(c as u16, 0), c)), [None; 4]);
}

#[test]
fn lower_limit_lowers_the_limit_per_owner() {
    let lowered = |per_owner, total| {
        let mut pool = IdleConnections::<u32>::new(Limits { total: 4096, per_backend: 16, per_owner });
        pool.lower_limit(total);
        (pool.limits.total, pool.limits.per_owner)
    };
    assert_eq!(lowered(256, 512), (512, 32));
    assert_eq!(lowered(256, 64), (64, 16));
    assert_eq!(lowered(4, 512), (512, 4));
    assert_eq!(lowered(4096, 0), (1, 16));
    assert_eq!(lowered(256, 10_000), (4096, 256));
}

#[test]
fn removed_connection_is_not_taken() {
    let mut pool = IdleConnections::new(LIMITS);
    let [one, two] = [1, 2].map(|c| outcome(pool.keep(&key(1, 7), None, c, 0)).0.unwrap());
    assert_eq!((pool.remove(one), pool.remove(one), pool.remove(99)), (Some(1), None, None));
    assert_eq!(take(&mut pool, &key(1, 7)), Some(2));
    assert_eq!(pool.remove(two), None);
}

#[derive(Clone, Debug)]
enum Step {
    Keep(u16, u64),
    Take(u16, u64),
    KeepTaken(usize),
    Release(usize),
    Remove(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_u16, 0..3_u64).prop_map(|(port, owner)| Step::Keep(port, owner)),
        2 => (0..6_u16, 0..3_u64).prop_map(|(port, owner)| Step::Take(port, owner)),
        1 => (0..6_usize).prop_map(Step::KeepTaken),
        1 => (0..6_usize).prop_map(Step::Release),
        1 => (0..6_u32).prop_map(Step::Remove),
    ]
}

/// A model of the pool: a list, oldest first.
#[derive(Default)]
struct Model(VecDeque<(Key, u32, u32)>);

impl Model {
    fn count(&self, is_it: impl Fn(&Key) -> bool) -> u32 {
        self.0.iter().filter(|(key, ..)| is_it(key)).count() as u32
    }

    fn evict(&mut self, is_it: impl Fn(&Key) -> bool) -> Option<u32> {
        let at = self.0.iter().position(|(key, ..)| is_it(key))?;
        self.0.remove(at).map(|(_, connection, _)| connection)
    }
}

proptest! {
    #[test]
    fn pool_matches_the_model(steps in proptest::collection::vec(step(), 0..200)) {
        let mut pool = IdleConnections::new(LIMITS);
        let mut model = Model::default();
        let mut taken: Vec<(Key, u32, BackendHandle)> = Vec::new();
        let mut max_taken = 0;
        for (fresh, step) in (0..).zip(steps) {
            let kept = match step {
                Step::Keep(port, owner) => {
                    let key = key(port, owner);
                    Some((key, fresh, outcome(pool.keep(&key, None, fresh, 0))))
                }
                Step::KeepTaken(at) if at < taken.len() => {
                    let (key, connection, handle) = taken.remove(at);
                    Some((key, connection, outcome(pool.keep(&key, Some(handle), connection, 0))))
                }
                Step::Release(at) if at < taken.len() => {
                    pool.release(taken.remove(at).2);
                    None
                }
                Step::KeepTaken(_) | Step::Release(_) => None,
                Step::Take(port, owner) => {
                    let key = key(port, owner);
                    let newest = model.0.iter().rposition(|(other, ..)| *other == key);
                    let newest = newest.and_then(|at| model.0.remove(at)).map(|(_, connection, _)| connection);
                    let got = pool.take(&key, |_, _| true);
                    prop_assert_eq!(got.as_ref().map(|(connection, _)| *connection), newest);
                    taken.extend(got.map(|(connection, handle)| (key, connection, handle)));
                    max_taken = max_taken.max(taken.len());
                    None
                }
                Step::Remove(slot) => {
                    let at = model.0.iter().position(|(.., other)| *other == slot);
                    let removed = at.and_then(|at| model.0.remove(at)).map(|(_, connection, _)| connection);
                    prop_assert_eq!(pool.remove(slot), removed);
                    None
                }
            };
            if let Some((key, connection, (slot, gone))) = kept {
                let is_full = model.count(|other| *other == key) >= LIMITS.per_backend;
                let has_enough = key.owner != 0 && model.count(|other| other.owner == key.owner) >= LIMITS.per_owner;
                let evicted = if is_full {
                    model.evict(|other| *other == key)
                } else if !has_enough && model.0.len() as u32 >= LIMITS.total {
                    model.evict(|_| true)
                } else {
                    None
                };
                prop_assert_eq!(gone, evicted);
                prop_assert_eq!(slot.is_none(), has_enough && !is_full);
                model.0.extend(slot.map(|slot| (key, connection, slot)));
            }
            prop_assert_eq!(pool.count as usize, model.0.len());
            prop_assert!(pool.entries.len() <= LIMITS.total as usize);
            prop_assert!(pool.backends.max_keys() <= LIMITS.total as usize + max_taken + 1);
        }
        for (.., handle) in taken {
            pool.release(handle);
        }
        for slot in 0..LIMITS.total {
            pool.remove(slot);
        }
        prop_assert!(pool.backends.is_empty() && pool.owners.is_empty(), "nothing is left behind");
    }
}
