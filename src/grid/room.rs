//! How many clients may be in at once, and who goes when another comes.
//!
//! A client sends its command at once and is served within milliseconds. So when all places are taken, it is the one that
//! has kept silent longest that goes: neither one host, nor all of them, can keep others out by staying.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::metrics::Metrics;

/// Connections that one host may have open, so that none can take them all. Of a small `--max-connections` it is half.
pub const MAX_CONNECTIONS_PER_HOST: usize = 64;

/// How many connections there are, and whose.
pub struct Room {
    metrics: Arc<Metrics>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    told: bool,
    hosts: HashMap<IpAddr, Host>,
    last_number: u64,
    /// Those whose command is not there yet, the longest waiting first.
    waiting: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
}

#[derive(Default)]
struct Host {
    open: usize,
    told: bool,
    /// The numbers of those of `waiting` that are its.
    waiting: BTreeSet<u64>,
}

/// One connection's place, free again when dropped.
pub struct Place {
    room: Arc<Room>,
    host: IpAddr,
    number: u64,
    /// Places there were when it was taken.
    most: usize,
    /// Told when another client has got the place.
    pub given_up: Arc<Notify>,
}

/// There is no place: everybody who is in is being served.
#[derive(Debug, PartialEq, Eq)]
pub struct Full {
    /// Since there last was one.
    pub first: bool,
    /// Which limit.
    pub limit: Limit,
}

/// How many may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of one host.
    PerHost,
    /// Of all.
    All,
}

impl Limit {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PerHost => "the limit of connections per host",
            Self::All => "the limit of connections, --max-connections",
        }
    }

    /// For metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::PerHost => "per_host",
            Self::All => "max_connections",
        }
    }
}

impl Room {
    /// An empty one.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, taken: Mutex::new(Taken::default()) }
    }

    /// Gives a client of `host` a place, if need be that of the one that has waited longest for its own command; of a host
    /// that has all places it may have, of the same host.
    ///
    /// # Errors
    /// Nobody waits.
    pub fn take(room: &Arc<Self>, host: IpAddr, most: usize) -> Result<Place, Full> {
        let mut guard = room.taken.lock();
        let taken = &mut *guard;
        let of_host = taken.hosts.get(&host).map_or(0, |host| host.open);
        let limit = if of_host >= most_per_host(most) {
            Some(Limit::PerHost)
        } else if taken.total >= most {
            Some(Limit::All)
        } else {
            None
        };
        if let Some(limit) = limit {
            let longest = match limit {
                Limit::PerHost => taken.hosts.get(&host).and_then(|host| host.waiting.first()).copied(),
                Limit::All => taken.waiting.keys().next().copied(),
            };
            match longest {
                Some(number) => {
                    if let Some((other, given_up)) = taken.leave(number) {
                        given_up.notify_one();
                        taken.close(other);
                        room.metrics.connections.dec();
                        room.metrics.refused("waited_longest");
                    }
                }
                None => {
                    let told = match limit {
                        Limit::PerHost => taken.hosts.get_mut(&host).map(|host| &mut host.told),
                        Limit::All => Some(&mut taken.told),
                    };
                    let first = told.is_some_and(|told| !std::mem::replace(told, true));
                    return Err(Full { first, limit });
                }
            }
        }
        taken.total += 1;
        taken.last_number += 1;
        let (number, given_up) = (taken.last_number, Arc::new(Notify::new()));
        let of_host = taken.hosts.entry(host).or_default();
        of_host.open += 1;
        of_host.waiting.insert(number);
        taken.waiting.insert(number, (host, Arc::clone(&given_up)));
        room.metrics.connections.inc();
        Ok(Place { room: Arc::clone(room), host, number, most, given_up })
    }
}

impl Taken {
    /// One that waited does no longer.
    fn leave(&mut self, number: u64) -> Option<(IpAddr, Arc<Notify>)> {
        let (host, given_up) = self.waiting.remove(&number)?;
        if let Some(of_host) = self.hosts.get_mut(&host) {
            of_host.waiting.remove(&number);
        }
        Some((host, given_up))
    }

    fn close(&mut self, host: IpAddr) {
        self.total -= 1;
        if let Some(open) = self.hosts.get_mut(&host) {
            open.open -= 1;
            if open.open == 0 {
                self.hosts.remove(&host);
            }
        }
    }
}

impl Place {
    /// The command is there: from now on nobody else gets the place.
    pub fn keep(&mut self) {
        if self.room.taken.lock().leave(self.number).is_some() {
            self.number = KEPT;
        }
    }
}

/// No connection's number.
const KEPT: u64 = 0;

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        // Neither kept nor waiting: another has it.
        if self.number != KEPT && taken.leave(self.number).is_none() {
            return;
        }
        taken.close(self.host);
        self.room.metrics.connections.dec();
        // Told again only after it has been far from full: not at each single place that comes free.
        if taken.total <= self.most / 2 {
            taken.told = false;
        }
    }
}

fn most_per_host(most: usize) -> usize {
    MAX_CONNECTIONS_PER_HOST.min(most / 2).max(1)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::time::{Duration, timeout};

    use super::*;

    fn room() -> Arc<Room> {
        Arc::new(Room::new(Metrics::register(&mut Registry::default())))
    }

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_host_cannot_take_all_places() {
        let room = room();
        let take = |last| {
            let mut place = Room::take(&room, host(last), 100)?;
            place.keep();
            Ok::<_, Full>(place)
        };
        let places: Vec<_> = (0..50).map(|_| take(1).unwrap()).collect();
        assert!(take(1).is_err_and(|full| full == Full { first: true, limit: Limit::PerHost }));
        assert!(take(1).is_err_and(|full| !full.first));
        let others: Vec<_> = (0..50).map(|_| take(2).unwrap()).collect();
        assert!(take(3).is_err_and(|full| full == Full { first: true, limit: Limit::All }));
        assert_eq!(room.metrics.connections.get(), 100);
        drop(places);
        assert!(take(3).is_ok());
        drop(others);
        let taken = room.taken.lock();
        assert!(taken.total == 0 && taken.hosts.is_empty() && taken.waiting.is_empty());
        assert_eq!(room.metrics.connections.get(), 0);
    }

    #[tokio::test]
    async fn who_has_waited_longest_makes_room() {
        let room = room();
        let take = |last| Room::take(&room, host(last), 4);
        let is_given_up =
            async |place: &Place| timeout(Duration::from_millis(1), place.given_up.notified()).await.is_ok();
        let (oldest, mut kept, third, fourth) =
            (take(1).unwrap(), take(2).unwrap(), take(1).unwrap(), take(3).unwrap());
        kept.keep();
        let fifth = take(4).unwrap();
        assert!(is_given_up(&oldest).await && !is_given_up(&third).await);
        // Of the same host when that has all it may have, also if another has waited longer.
        let sixth = take(4).unwrap();
        assert!(is_given_up(&third).await && !is_given_up(&fifth).await);
        let seventh = take(4).unwrap();
        assert!(is_given_up(&fifth).await && !is_given_up(&fourth).await);
        assert_eq!(room.taken.lock().total, 4);
        drop((oldest, kept, third, fourth, fifth, sixth, seventh));
        let taken = room.taken.lock();
        assert!(taken.total == 0 && taken.hosts.is_empty() && taken.waiting.is_empty());
        assert_eq!(room.metrics.connections.get(), 0);
    }

    #[test]
    fn the_limit_per_host_is_a_constant_and_never_zero() {
        for (most, per_host) in [(1, 1), (2, 1), (100, 50), (1024, MAX_CONNECTIONS_PER_HOST), (100_000, 64)] {
            assert_eq!(most_per_host(most), per_host, "{most}");
        }
    }
}
