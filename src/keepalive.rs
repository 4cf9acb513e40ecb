//! Idle connections to backends: which one the next request gets, and which one is given up for another. No nginx.
//!
//! Every operation takes constant time, except that [`IdleConnections::take`] looks at the connections of one backend until
//! one fits. Nothing is allocated after the first connections have been kept.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

/// No entry, no backend: the end of a list.
const NONE: u32 = u32::MAX;

/// How many connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all backends together.
    pub total: u32,
    /// Of one backend, that is one [`Key`].
    pub per_backend: u32,
    /// Of one owner. Owners share a counter now and then, and then this limit.
    pub per_owner: u32,
}

/// Everything that two requests must have in common to use the same connection, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    address: [u64; 3],
    owner: u64,
    session: u64,
}

impl Key {
    /// `owner` is a hash that tenants cannot choose, or 0 for connections that belong to the operator. `session` stands
    /// for all settings that the connection was opened with.
    #[inline(always)]
    pub fn new(address: SocketAddr, owner: u64, session: u64) -> Self {
        let port = u64::from(address.port());
        let address = match address {
            SocketAddr::V4(v4) => [port | 4 << 16, u32::from(*v4.ip()).into(), 0],
            SocketAddr::V6(v6) => {
                let ip = u128::from(*v6.ip());
                [port | 6 << 16, (ip >> 64) as u64, ip as u64]
            }
        };
        Self { address, owner, session }
    }
}

/// What became of a connection that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<C> {
    /// The place that it has; `None` when its owner has enough.
    pub place: Option<u32>,
    /// The connection that was given up for it, for the caller to close.
    pub given_up: Option<C>,
}

/// The idle connections of one worker. `C` is a handle; the caller opens and closes what it stands for.
#[derive(Debug)]
pub struct IdleConnections<C> {
    limits: Limits,
    entries: Vec<Entry<C>>,
    /// Unused entries, linked by [`Links::older`] of [`ALL`].
    free_entry: u32,
    backends: Vec<Backend>,
    /// Unused backends, linked by [`Backend::next`].
    free_backend: u32,
    /// The first backend of each hash value.
    buckets: Box<[u32]>,
    /// Connections by owner. Owners are hashes already.
    owners: Box<[u32]>,
    all: List,
    count: u32,
    seeds: [u64; 3],
}

#[derive(Debug)]
struct Entry<C> {
    connection: Option<C>,
    since: u64,
    backend: u32,
    links: [Links; 2],
}

/// The two lists that an entry is in: of its backend, of all.
const OWN: usize = 0;
const ALL: usize = 1;

#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u32,
    older: u32,
}

/// Entries by the time they were kept.
#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
}

/// A backend that has connections.
#[derive(Debug)]
struct Backend {
    key: Key,
    bucket: u32,
    /// The next of the same hash value.
    next: u32,
    own: List,
    count: u32,
}

impl List {
    const EMPTY: Self = Self { newest: NONE, oldest: NONE };

    fn push<C>(&mut self, entries: &mut [Entry<C>], list: usize, at: u32) {
        entries[at as usize].links[list] = Links { newer: NONE, older: self.newest };
        match entries.get_mut(self.newest as usize) {
            Some(entry) => entry.links[list].newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    fn unlink<C>(&mut self, entries: &mut [Entry<C>], list: usize, at: u32) {
        let Links { newer, older } = entries[at as usize].links[list];
        match entries.get_mut(newer as usize) {
            Some(entry) => entry.links[list].older = older,
            None => self.newest = older,
        }
        match entries.get_mut(older as usize) {
            Some(entry) => entry.links[list].newer = newer,
            None => self.oldest = newer,
        }
    }
}

impl<C: Copy> IdleConnections<C> {
    /// An empty pool. Memory: some 150 bytes for each connection that it has had at the same time, and 12 for each of
    /// `limits.total`.
    pub fn new(limits: Limits) -> Self {
        let hashes = (limits.total as usize).next_power_of_two();
        let random = RandomState::new();
        Self {
            limits,
            entries: Vec::new(),
            free_entry: NONE,
            backends: Vec::new(),
            free_backend: NONE,
            buckets: vec![NONE; 2 * hashes].into(),
            owners: vec![0; hashes].into(),
            all: List::EMPTY,
            count: 0,
            seeds: [1, 2, 3].map(|number| random.hash_one(number)),
        }
    }

    /// How many connections are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.count as usize
    }

    /// Takes out the newest connection of a backend that `fits`, which gets the time that the connection was kept at.
    #[inline(always)]
    pub fn take(&mut self, key: &Key, mut fits: impl FnMut(C, u64) -> bool) -> Option<C> {
        let backend = self.find(key, self.bucket(key))?;
        let mut at = self.backends[backend as usize].own.newest;
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.connection.is_some_and(|connection| fits(connection, entry.since)) {
                return self.remove(at);
            }
            at = entry.links[OWN].older;
        }
        None
    }

    /// Keeps a connection that is idle since `now`. A backend that has enough gives up its oldest connection; a pool that
    /// has enough the oldest of all.
    #[inline(always)]
    pub fn keep(&mut self, key: &Key, connection: C, now: u64) -> Kept<C> {
        let bucket = self.bucket(key);
        let mut backend = self.find(key, bucket);
        let per_owner = self.limits.per_owner;
        let full_backend = backend.map(|at| &self.backends[at as usize]).filter(|b| b.count >= self.limits.per_backend);
        let mut given_up = None;
        if let Some(full) = full_backend {
            given_up = Some(full.own.oldest);
        } else if self.owner(key).is_some_and(|count| *count >= per_owner) {
            return Kept { place: None, given_up: None };
        } else if self.count >= self.limits.total {
            given_up = Some(self.all.oldest);
        }
        let given_up = given_up.and_then(|at| {
            let given_up = self.remove(at);
            // The backend may have had no other.
            backend = self.find(key, bucket);
            given_up
        });
        let backend = backend.unwrap_or_else(|| self.add_backend(key, bucket));
        let entry =
            Entry { connection: Some(connection), since: now, backend, links: [Links { newer: NONE, older: NONE }; 2] };
        let place = match self.entries.get_mut(self.free_entry as usize) {
            Some(free) => {
                let place = self.free_entry;
                self.free_entry = free.links[ALL].older;
                *free = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.all.push(&mut self.entries, ALL, place);
        let backend = &mut self.backends[backend as usize];
        backend.own.push(&mut self.entries, OWN, place);
        backend.count += 1;
        self.count += 1;
        if let Some(count) = self.owner(key) {
            *count += 1;
        }
        Kept { place: Some(place), given_up }
    }

    /// Takes out the connection at a place.
    #[inline]
    pub fn remove(&mut self, place: u32) -> Option<C> {
        let entry = self.entries.get_mut(place as usize)?;
        let connection = entry.connection.take()?;
        let number = entry.backend;
        self.all.unlink(&mut self.entries, ALL, place);
        let backend = &mut self.backends[number as usize];
        backend.own.unlink(&mut self.entries, OWN, place);
        backend.count -= 1;
        let (key, is_last) = (backend.key, backend.count == 0);
        self.count -= 1;
        if let Some(count) = self.owner(&key) {
            *count -= 1;
        }
        if is_last {
            self.forget_backend(number);
        }
        self.entries[place as usize].links[ALL].older = self.free_entry;
        self.free_entry = place;
        Some(connection)
    }

    /// How many connections the owner of a key has; `None` for the operator.
    #[inline(always)]
    fn owner(&mut self, key: &Key) -> Option<&mut u32> {
        let mask = self.owners.len() - 1;
        if key.owner == 0 { None } else { self.owners.get_mut(key.owner as usize & mask) }
    }

    #[inline(always)]
    fn bucket(&self, key: &Key) -> u32 {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let Key { address: [port, high, low], owner, session } = key;
        let [one, two, three] = self.seeds;
        let hash = fold(high ^ one, owner ^ port ^ two);
        let hash = fold(hash ^ low ^ three, session ^ one);
        hash as u32 & (self.buckets.len() as u32 - 1)
    }

    #[inline(always)]
    fn find(&self, key: &Key, bucket: u32) -> Option<u32> {
        let mut at = self.buckets[bucket as usize];
        while let Some(backend) = self.backends.get(at as usize) {
            if backend.key == *key {
                return Some(at);
            }
            at = backend.next;
        }
        None
    }

    fn add_backend(&mut self, key: &Key, bucket: u32) -> u32 {
        let first = &mut self.buckets[bucket as usize];
        let backend = Backend { key: *key, bucket, next: *first, own: List::EMPTY, count: 0 };
        let at = match self.backends.get_mut(self.free_backend as usize) {
            Some(free) => {
                let at = self.free_backend;
                self.free_backend = free.next;
                *free = backend;
                at
            }
            None => {
                self.backends.push(backend);
                self.backends.len() as u32 - 1
            }
        };
        *first = at;
        at
    }

    fn forget_backend(&mut self, number: u32) {
        let Backend { bucket, next, .. } = self.backends[number as usize];
        let first = &mut self.buckets[bucket as usize];
        if *first == number {
            *first = next;
        } else {
            let mut at = *first;
            while let Some(backend) = self.backends.get_mut(at as usize) {
                if backend.next == number {
                    backend.next = next;
                    break;
                }
                at = backend.next;
            }
        }
        self.backends[number as usize].next = self.free_backend;
        self.free_backend = number;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { total: 4, per_backend: 2, per_owner: 3 };

    fn key(port: u16, owner: u64) -> Key {
        Key::new(([10, 0, 0, 1], port).into(), owner, 0)
    }

    fn any(_: u32, _: u64) -> bool {
        true
    }

    fn keep(pool: &mut IdleConnections<u32>, key: &Key, connection: u32) -> Option<u32> {
        let kept = pool.keep(key, connection, connection.into());
        assert!(kept.place.is_some(), "{connection}");
        kept.given_up
    }

    #[test]
    fn the_newest_is_taken_and_only_by_its_key() {
        let mut pool = IdleConnections::new(LIMITS);
        keep(&mut pool, &key(1, 7), 1);
        keep(&mut pool, &key(1, 7), 2);
        let v6 = |last| Key::new(([0, 0, 0, 0, 0, 0, last, 1], 1).into(), 7, 0);
        keep(&mut pool, &v6(1), 3);
        let same_address = Key::new(([10, 0, 0, 1], 1).into(), 7, 1);
        for other in [key(2, 7), key(1, 8), key(1, 0), same_address, v6(2)] {
            assert_eq!(pool.take(&other, any), None, "{other:?}");
        }
        assert_eq!(pool.take(&v6(1), any), Some(3));
        assert_eq!([(); 3].map(|()| pool.take(&key(1, 7), any)), [Some(2), Some(1), None]);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn one_that_does_not_fit_stays() {
        let mut pool = IdleConnections::new(LIMITS);
        keep(&mut pool, &key(1, 7), 1);
        keep(&mut pool, &key(1, 7), 2);
        assert_eq!(pool.take(&key(1, 7), |_, since| since < 2), Some(1));
        assert_eq!(pool.take(&key(1, 7), |_, since| since < 2), None);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_full_backend_gives_up_its_own_oldest() {
        let mut pool = IdleConnections::new(LIMITS);
        keep(&mut pool, &key(9, 9), 1);
        assert_eq!([2, 3, 4].map(|c| keep(&mut pool, &key(1, 7), c)), [None, None, Some(2)]);
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn a_full_pool_gives_up_the_oldest_of_all() {
        let mut pool = IdleConnections::new(LIMITS);
        let kept = [1, 2, 3, 4, 5].map(|c| keep(&mut pool, &key(c as u16, c.into()), c));
        assert_eq!(kept, [None, None, None, None, Some(1)]);
        // What was used is new again.
        assert_eq!(pool.take(&key(2, 2), any), Some(2));
        keep(&mut pool, &key(2, 2), 2);
        assert_eq!(keep(&mut pool, &key(6, 6), 6), Some(3));
        assert_eq!(pool.len(), 4);
    }

    #[test]
    fn one_owner_cannot_take_everything() {
        let mut pool = IdleConnections::new(LIMITS);
        for c in 1..=3 {
            keep(&mut pool, &key(c as u16, 7), c);
        }
        assert_eq!(pool.keep(&key(4, 7), 4, 4), Kept { place: None, given_up: None });
        // The operator's own have no such limit.
        let mut pool = IdleConnections::new(LIMITS);
        assert_eq!([1, 2, 3, 4].map(|c| keep(&mut pool, &key(c as u16, 0), c)), [None; 4]);
    }

    #[test]
    fn one_that_closes_leaves_at_once() {
        let mut pool = IdleConnections::new(LIMITS);
        let [one, two] = [1, 2].map(|c| pool.keep(&key(1, 7), c, 0).place.unwrap());
        assert_eq!((pool.remove(one), pool.remove(one), pool.remove(99)), (Some(1), None, None));
        assert_eq!(pool.take(&key(1, 7), any), Some(2));
        assert_eq!(pool.remove(two), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Keep(u16, u64),
        Take(u16, u64),
        Remove(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..6_u16, 0..3_u64).prop_map(|(port, owner)| Step::Keep(port, owner)),
            2 => (0..6_u16, 0..3_u64).prop_map(|(port, owner)| Step::Take(port, owner)),
            1 => (0..6_u32).prop_map(Step::Remove),
        ]
    }

    /// The same as a list, oldest first.
    #[derive(Default)]
    struct Model(VecDeque<(Key, u32, u32)>);

    impl Model {
        fn count(&self, is_it: impl Fn(&Key) -> bool) -> u32 {
            self.0.iter().filter(|(key, ..)| is_it(key)).count() as u32
        }

        fn give_up(&mut self, is_it: impl Fn(&Key) -> bool) -> Option<u32> {
            let at = self.0.iter().position(|(key, ..)| is_it(key))?;
            self.0.remove(at).map(|(_, connection, _)| connection)
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_would(steps in proptest::collection::vec(step(), 0..200)) {
            let mut pool = IdleConnections::new(LIMITS);
            let mut model = Model::default();
            for (connection, step) in (0..).zip(steps) {
                match step {
                    Step::Keep(port, owner) => {
                        let key = key(port, owner);
                        let kept = pool.keep(&key, connection, 0);
                        let given_up = if model.count(|other| *other == key) >= LIMITS.per_backend {
                            model.give_up(|other| *other == key)
                        } else if owner != 0 && model.count(|other| other.owner == owner) >= LIMITS.per_owner {
                            prop_assert_eq!(kept, Kept { place: None, given_up: None });
                            continue;
                        } else if model.0.len() as u32 >= LIMITS.total {
                            model.give_up(|_| true)
                        } else {
                            None
                        };
                        prop_assert_eq!(kept.given_up, given_up);
                        model.0.push_back((key, connection, kept.place.unwrap()));
                    }
                    Step::Take(port, owner) => {
                        let key = key(port, owner);
                        let newest = model.0.iter().rposition(|(other, ..)| *other == key);
                        let newest = newest.and_then(|at| model.0.remove(at)).map(|(_, connection, _)| connection);
                        prop_assert_eq!(pool.take(&key, any), newest);
                    }
                    Step::Remove(place) => {
                        let at = model.0.iter().position(|(.., other)| *other == place);
                        let removed = at.and_then(|at| model.0.remove(at)).map(|(_, connection, _)| connection);
                        prop_assert_eq!(pool.remove(place), removed);
                    }
                }
                prop_assert_eq!(pool.len(), model.0.len());
                prop_assert!(pool.entries.len() <= LIMITS.total as usize);
                prop_assert!(pool.backends.len() <= LIMITS.total as usize);
            }
        }
    }
}
