//! The pool of idle connections to backends: which one a request reuses, and which one is evicted. Independent of nginx.
//!
//! Every operation takes constant time, except that [`IdleConnections::take`] scans the connections of one backend until one
//! fits. Memory grows with the peak number of kept connections, up to the limit.

mod index;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use crate::directive::upstream::Limits;
use index::{Hashed, Index, NONE, Seeds};

/// What two requests must have in common to reuse the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    address: [u64; 3],
    owner: u64,
    session: u64,
}

impl Key {
    /// `owner` is a hash that tenants cannot choose, or 0 for shared connections. `session` identifies all settings that the
    /// connection was opened with.
    #[inline(always)]
    pub fn new(address: &SocketAddr, owner: u64, session: u64) -> Self {
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

/// Refers to the backend of a taken connection, which saves a lookup when the connection is kept again. Return it with
/// [`IdleConnections::keep`] or [`IdleConnections::release`].
#[derive(Debug)]
pub struct BackendHandle(u32);

/// The result of [`IdleConnections::keep`].
#[derive(Debug, PartialEq, Eq)]
pub enum KeepOutcome<'i, C> {
    /// The connection is kept.
    Kept {
        /// The slot of the connection.
        slot: u32,
        /// The connection in this slot.
        connection: &'i mut C,
        /// A connection that was evicted for it. The caller closes it.
        evicted: Option<C>,
    },
    /// The owner has reached its limit.
    Rejected(C),
}

impl Hashed for Key {
    #[inline(always)]
    fn hash(&self, seeds: &Seeds) -> u64 {
        let [port, high, low] = self.address;
        seeds.mix(seeds.mix(high, self.owner ^ port) ^ low, self.session)
    }
}

impl Hashed for u64 {
    #[inline(always)]
    fn hash(&self, seeds: &Seeds) -> u64 {
        seeds.mix(*self, 0)
    }
}

/// The idle connections of one worker. `C` is a handle; the caller opens and closes the connection.
#[derive(Debug)]
pub struct IdleConnections<C> {
    limits: Limits,
    entries: Vec<Entry<C>>,
    /// Unused entries, linked by [`Links::older`] of [`ALL`].
    free: u32,
    all: List,
    count: u32,
    backends: Index<Key, Backend>,
    owners: Index<u64, Owner>,
    usage: Usage,
}

/// How often connections were kept and reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// [`IdleConnections::take`] found a connection.
    pub reused: u64,
    /// It found none.
    pub opened: u64,
    /// A connection made room for another one.
    pub evicted: u64,
}

#[derive(Debug)]
struct Entry<C> {
    connection: Option<C>,
    since: u64,
    backend: u32,
    links: [Links; 2],
}

/// The two lists of an entry: its backend's, and the list of all.
const OWN: usize = 0;
const ALL: usize = 1;

#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u32,
    older: u32,
}

/// Entries ordered by the time they were kept.
#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
}

/// A backend that has connections or handles.
#[derive(Debug)]
struct Backend {
    own: List,
    connections: u32,
    handles: u32,
    owner: u32,
}

/// An owner that has backends.
#[derive(Debug)]
struct Owner {
    connections: u32,
    backends: u32,
    limit: u32,
}

impl List {
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

impl<C> IdleConnections<C> {
    /// An empty pool. Memory: 12 to 24 bytes per connection of `limits.total`, and some 200 bytes per connection at the peak.
    pub fn new(limits: Limits) -> Self {
        let total = limits.total as usize;
        Self {
            limits,
            entries: Vec::new(),
            free: NONE,
            all: List { newest: NONE, oldest: NONE },
            count: 0,
            backends: Index::new(2 * total),
            owners: Index::new(total),
            usage: Usage::default(),
        }
    }

    /// Lowers the total limit, and the limit per owner in proportion, but not below the limit per backend. For an empty pool.
    pub fn lower_limit(&mut self, total: u32) {
        let Limits { total: old, per_backend, per_owner } = self.limits;
        let total = total.clamp(1, old);
        let share = u64::from(per_owner) * u64::from(total) / u64::from(old);
        let per_owner = (share as u32).max(per_backend.min(per_owner));
        self.limits = Limits { total, per_backend, per_owner };
    }

    /// Number of idle connections.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The usage since the last call.
    pub fn take_usage(&mut self) -> Usage {
        std::mem::take(&mut self.usage)
    }

    /// Takes the newest connection of a backend that `fits` accepts. `fits` gets the time when the connection was kept.
    #[inline(always)]
    pub fn take(&mut self, key: &Key, mut fits: impl FnMut(&C, u64) -> bool) -> Option<(C, BackendHandle)> {
        self.usage.opened += 1;
        let number = self.backends.find(key)?;
        let mut at = self.backends[number].own.newest;
        while let Some(entry) = self.entries.get_mut(at as usize) {
            let since = entry.since;
            if let Some(connection) = entry.connection.take_if(|connection| fits(connection, since)) {
                self.backends[number].handles += 1;
                self.unlink(at);
                self.usage.opened -= 1;
                self.usage.reused += 1;
                return Some((connection, BackendHandle(number)));
            }
            at = entry.links[OWN].older;
        }
        None
    }

    /// Returns the handle of a connection that is not kept again.
    #[inline]
    pub fn release(&mut self, BackendHandle(number): BackendHandle) {
        self.backends[number].handles -= 1;
        self.remove_if_unused(number);
    }

    /// Keeps a connection that is idle since `now`. A backend at its limit evicts its own oldest connection; a full pool
    /// evicts the oldest of all.
    #[inline(always)]
    pub fn keep(&mut self, key: &Key, handle: Option<BackendHandle>, connection: C, now: u64) -> KeepOutcome<'_, C> {
        let number = match handle {
            Some(BackendHandle(number)) => number,
            None => self.find_or_add(key),
        };
        let backend = &self.backends[number];
        let owner = &self.owners[backend.owner];
        let evicted = if backend.connections >= self.limits.per_backend {
            backend.own.oldest
        } else if owner.connections >= owner.limit {
            self.release(BackendHandle(number));
            return KeepOutcome::Rejected(connection);
        } else if self.count >= self.limits.total {
            self.all.oldest
        } else {
            NONE
        };
        let evicted = self.remove(evicted);
        self.usage.evicted += u64::from(evicted.is_some());
        let links = [Links { newer: NONE, older: NONE }; 2];
        let entry = Entry { connection: None, since: now, backend: number, links };
        let slot = match self.entries.get_mut(self.free as usize) {
            Some(free) => {
                let slot = self.free;
                self.free = free.links[ALL].older;
                *free = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.all.push(&mut self.entries, ALL, slot);
        let backend = &mut self.backends[number];
        backend.own.push(&mut self.entries, OWN, slot);
        backend.connections += 1;
        backend.handles -= 1;
        self.owners[backend.owner].connections += 1;
        self.count += 1;
        let connection = self.entries[slot as usize].connection.insert(connection);
        KeepOutcome::Kept { slot, connection, evicted }
    }

    /// The connection in a slot.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut C> {
        self.entries.get_mut(slot as usize)?.connection.as_mut()
    }

    /// Removes the connection in a slot.
    #[inline]
    pub fn remove(&mut self, slot: u32) -> Option<C> {
        let entry = self.entries.get_mut(slot as usize)?;
        let (connection, number) = (entry.connection.take()?, entry.backend);
        self.unlink(slot);
        self.remove_if_unused(number);
        Some(connection)
    }

    /// Frees the slot of a removed connection.
    #[inline(always)]
    fn unlink(&mut self, slot: u32) {
        self.all.unlink(&mut self.entries, ALL, slot);
        let number = self.entries[slot as usize].backend;
        let backend = &mut self.backends[number];
        backend.own.unlink(&mut self.entries, OWN, slot);
        backend.connections -= 1;
        self.owners[backend.owner].connections -= 1;
        self.count -= 1;
        self.entries[slot as usize].links[ALL].older = self.free;
        self.free = slot;
    }

    /// Finds or adds a backend, and counts a handle for the caller.
    fn find_or_add(&mut self, key: &Key) -> u32 {
        if let Some(number) = self.backends.find(key) {
            self.backends[number].handles += 1;
            return number;
        }
        let owner = self.owners.find(&key.owner).unwrap_or_else(|| {
            // Shared connections have no limit per owner.
            let limit = if key.owner == 0 { u32::MAX } else { self.limits.per_owner };
            self.owners.add(key.owner, Owner { connections: 0, backends: 0, limit })
        });
        self.owners[owner].backends += 1;
        let own = List { newest: NONE, oldest: NONE };
        self.backends.add(*key, Backend { own, connections: 0, handles: 1, owner })
    }

    fn remove_if_unused(&mut self, number: u32) {
        let Backend { connections, handles, owner, .. } = self.backends[number];
        if connections > 0 || handles > 0 {
            return;
        }
        self.backends.remove(number);
        self.owners[owner].backends -= 1;
        if self.owners[owner].backends == 0 {
            self.owners.remove(owner);
        }
    }
}
