//! Limits the open connections of a server, and evicts idle connections in favor of new ones.
//!
//! A connection is *idle* while the server waits for its client, and *busy* while the server works for it. When a limit is
//! reached, the limiter evicts the connection that has been idle longest, for the per-host limit one of the same host. It refuses
//! a new connection only if all others are busy. So clients cannot lock others out by holding idle connections.
//!
//! ```no_run
//! # use std::{net::{IpAddr, SocketAddr}, sync::Arc};
//! # use urlproxy::daemon::{ConnectionLimiter, ConnectionMeter, Limits};
//! # async fn request() {}
//! # async fn answer() {}
//! # async fn serve(peer: SocketAddr) {
//! let limiter: Arc<ConnectionLimiter<IpAddr>> = ConnectionLimiter::new(ConnectionMeter::default());
//! let Ok(permit) = limiter.admit(peer.ip().to_canonical(), &Limits::of(1024)) else { return };
//! tokio::select! {
//!     () = request() => {}
//!     () = permit.evicted() => return,
//! }
//! permit.set_busy();
//! answer().await;
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all hosts together.
    pub total: usize,
    /// Connections of one host.
    pub per_host: usize,
    /// Connections of one owner on one host; connections without a known owner do not count.
    pub per_owner: usize,
}

impl Limits {
    /// The upper bound of `per_host` in [`Limits::of`].
    pub const PER_HOST: usize = 64;

    /// Derives all limits from `total`: one host gets at most 64 and at most half, one owner half of its host's share.
    pub fn of(total: usize) -> Self {
        let per_host = Self::PER_HOST.min(total / 2).max(1);
        Self { total, per_host, per_owner: (per_host / 2).max(1) }
    }
}

/// Names one of the [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::total`].
    Total,
    /// [`Limits::per_host`].
    PerHost,
    /// [`Limits::per_owner`].
    PerOwner,
}

impl Limit {
    /// The value of the metric's label `by`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Total => "max_connections",
            Self::PerHost => "per_host",
            Self::PerOwner => "per_owner",
        }
    }
}

/// A limit is reached, and all connections that count toward it are busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection limit {} reached", limit.label())]
pub struct Refused {
    /// The limit that is reached.
    pub limit: Limit,
    /// Whether to log this refusal: the first one since connections were plentiful (total) or the host had none left.
    pub first: bool,
}

/// Connection metrics, shared by any number of limiters.
#[derive(Clone, Debug)]
pub struct ConnectionMeter {
    open: Gauge,
    refused: Family<By, Counter>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct By {
    by: &'static str,
}

/// The label of connections that were evicted for a newer one.
const EVICTED: &str = "waited_longest";

impl Default for ConnectionMeter {
    fn default() -> Self {
        let refused = Family::default();
        for by in [Limit::Total, Limit::PerHost, Limit::PerOwner].map(Limit::label).into_iter().chain([EVICTED]) {
            drop(refused.get_or_create(&By { by }));
        }
        Self { open: Gauge::default(), refused }
    }
}

impl ConnectionMeter {
    /// Registers the metrics `connections` and `connections_refused` under the prefix of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections of clients", self.open.clone());
        let help = "Connections closed by a limit, which the label names";
        registry.register("connections_refused", help, self.refused.clone());
    }

    /// Exports the label `by` from the start, at 0.
    pub fn expect(&self, by: &'static str) {
        drop(self.refused.get_or_create(&By { by }));
    }

    /// Counts a connection that the server closed for a reason of its own, the label `by`.
    pub fn refuse(&self, by: &'static str) {
        self.refused.get_or_create(&By { by }).inc();
    }
}

/// Admits connections. `H` identifies a host, `O` an owner, such as the user that an identd names.
#[derive(Debug)]
pub struct ConnectionLimiter<H, O = Infallible> {
    meter: ConnectionMeter,
    state: Mutex<State<H, O>>,
}

#[derive(Debug)]
struct State<H, O> {
    open: HashMap<u64, Connection<H, O>>,
    hosts: HashMap<H, Host<O>>,
    /// Idle connections by the turn in which they became idle: the first has been idle longest.
    idle: BTreeMap<u64, u64>,
    last_number: u64,
    last_turn: u64,
    /// A refusal by the total limit was reported, and the limiter has been full since.
    reported: bool,
}

#[derive(Debug)]
struct Connection<H, O> {
    host: H,
    owner: Option<O>,
    /// The turn in which the connection became idle; `None` while it is busy. `since` is the time of that turn.
    turn: Option<u64>,
    since: Instant,
    evicted: Arc<Notify>,
}

#[derive(Debug)]
struct Host<O> {
    open: usize,
    idle: BTreeSet<u64>,
    owners: HashMap<O, usize>,
    reported: bool,
}

/// The right to keep one connection open; dropping the permit releases it.
#[derive(Debug)]
pub struct Permit<H: Clone + Eq + Hash, O: Clone + Eq + Hash = Infallible> {
    limiter: Arc<ConnectionLimiter<H, O>>,
    number: u64,
    limits: Limits,
    evicted: Arc<Notify>,
}

impl<H: Clone + Eq + Hash, O: Clone + Eq + Hash> ConnectionLimiter<H, O> {
    /// A limiter without open connections.
    pub fn new(meter: ConnectionMeter) -> Arc<Self> {
        let state = State {
            open: HashMap::new(),
            hosts: HashMap::new(),
            idle: BTreeMap::new(),
            last_number: 0,
            last_turn: 0,
            reported: false,
        };
        Arc::new(Self { meter, state: Mutex::new(state) })
    }

    /// Admits a new, idle connection of `host`. If a limit is reached, evicts the connection that has been idle longest.
    ///
    /// # Errors
    /// All connections of the host, or of all hosts, are busy.
    pub fn admit(self: &Arc<Self>, host: H, limits: &Limits) -> Result<Permit<H, O>, Refused> {
        self.try_admit(host.clone(), limits, Duration::ZERO).map_err(|limit| self.refuse(&host, limit))
    }

    /// Like [`admit`](Self::admit), but evicts only connections that have been idle for at least `idle`: the client of a younger one
    /// may have sent a request that is not read yet. Callers may retry.
    ///
    /// # Errors
    /// The limit that is reached; it is not counted before [`refuse`](Self::refuse).
    pub fn try_admit(self: &Arc<Self>, host: H, limits: &Limits, idle: Duration) -> Result<Permit<H, O>, Limit> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let of_host = state.hosts.get(&host);
        // The host's own limit first: evicting one of its connections may satisfy the total limit too.
        if of_host.is_some_and(|of_host| of_host.open >= limits.per_host) {
            let longest = of_host.and_then(|of_host| of_host.idle.first().copied());
            if !self.evict(state, longest, idle) {
                return Err(Limit::PerHost);
            }
        }
        if state.open.len() >= limits.total {
            let longest = state.idle.keys().next().copied();
            if !self.evict(state, longest, idle) {
                return Err(Limit::Total);
            }
        }
        state.last_number += 1;
        let (number, evicted) = (state.last_number, Arc::new(Notify::new()));
        let connection = Connection {
            host: host.clone(),
            owner: None,
            turn: None,
            since: Instant::now(),
            evicted: Arc::clone(&evicted),
        };
        state.open.insert(number, connection);
        let new = || Host { open: 0, idle: BTreeSet::new(), owners: HashMap::new(), reported: false };
        state.hosts.entry(host).or_insert_with(new).open += 1;
        state.set_idle(number);
        self.meter.open.inc();
        Ok(Permit { limiter: Arc::clone(self), number, limits: *limits, evicted })
    }

    /// Whether the host has an open connection.
    pub fn has(&self, host: &H) -> bool {
        self.state.lock().hosts.contains_key(host)
    }

    /// Counts a connection of the host that was refused because of `limit`.
    pub fn refuse(&self, host: &H, limit: Limit) -> Refused {
        let mut state = self.state.lock();
        let reported = match limit {
            Limit::Total => Some(&mut state.reported),
            Limit::PerHost | Limit::PerOwner => state.hosts.get_mut(host).map(|of_host| &mut of_host.reported),
        };
        self.refused(limit, reported)
    }

    /// Evicts the connection that has been idle since `turn`; false if there is none, or it has been idle for less than `idle`.
    fn evict(&self, state: &mut State<H, O>, turn: Option<u64>, idle: Duration) -> bool {
        let is_long = |number: &u64| state.open.get(number).is_some_and(|open| open.since.elapsed() >= idle);
        let number = turn.and_then(|turn| state.idle.get(&turn).copied()).filter(is_long);
        let Some(connection) = number.and_then(|number| state.close(number)) else { return false };
        connection.evicted.notify_waiters();
        self.meter.open.dec();
        self.meter.refuse(EVICTED);
        true
    }

    fn refused(&self, limit: Limit, reported: Option<&mut bool>) -> Refused {
        self.meter.refuse(limit.label());
        Refused { limit, first: reported.is_some_and(|reported| !std::mem::replace(reported, true)) }
    }
}

impl<H: Clone + Eq + Hash, O: Clone + Eq + Hash> State<H, O> {
    fn set_idle(&mut self, number: u64) {
        self.set_busy(number);
        let Some(connection) = self.open.get_mut(&number) else { return };
        self.last_turn += 1;
        (connection.turn, connection.since) = (Some(self.last_turn), Instant::now());
        self.idle.insert(self.last_turn, number);
        if let Some(host) = self.hosts.get_mut(&connection.host) {
            host.idle.insert(self.last_turn);
        }
    }

    fn set_busy(&mut self, number: u64) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        let Some(turn) = connection.turn.take() else { return };
        self.idle.remove(&turn);
        if let Some(host) = self.hosts.get_mut(&connection.host) {
            host.idle.remove(&turn);
        }
    }

    /// Removes a connection; `None` if it is closed already.
    fn close(&mut self, number: u64) -> Option<Connection<H, O>> {
        self.set_busy(number);
        let connection = self.open.remove(&number)?;
        if let Some(host) = self.hosts.get_mut(&connection.host) {
            host.open -= 1;
            if let Some(owner) = &connection.owner {
                host.disown(owner);
            }
            if host.open == 0 {
                self.hosts.remove(&connection.host);
            }
        }
        Some(connection)
    }
}

impl<O: Eq + Hash> Host<O> {
    fn disown(&mut self, owner: &O) {
        if let Some(open) = self.owners.get_mut(owner) {
            *open -= 1;
            if *open == 0 {
                self.owners.remove(owner);
            }
        }
    }
}

impl<H: Clone + Eq + Hash, O: Clone + Eq + Hash> Permit<H, O> {
    /// Waits until the limiter evicts this connection; the caller then closes it.
    pub async fn evicted(&self) {
        let notified = self.evicted.notified();
        if self.limiter.state.lock().open.contains_key(&self.number) {
            notified.await;
        }
    }

    /// Marks the connection busy: the server works for the client, and the limiter does not evict it. False if it is evicted
    /// already; another connection then has its place.
    pub fn set_busy(&self) -> bool {
        let mut state = self.limiter.state.lock();
        state.set_busy(self.number);
        state.open.contains_key(&self.number)
    }

    /// Marks the connection idle: the server waits for the client to send or read, and the limiter may evict it.
    pub fn set_idle(&self) {
        self.limiter.state.lock().set_idle(self.number);
    }

    /// Counts the connection toward its owner's limit.
    ///
    /// # Errors
    /// The owner has reached `per_owner` on this host.
    pub fn set_owner(&self, owner: O) -> Result<(), Refused> {
        let mut guard = self.limiter.state.lock();
        let state = &mut *guard;
        let Some(connection) = state.open.get_mut(&self.number) else { return Ok(()) };
        let Some(host) = state.hosts.get_mut(&connection.host) else { return Ok(()) };
        if let Some(before) = connection.owner.take() {
            host.disown(&before);
        }
        let open = host.owners.get(&owner).copied().unwrap_or(0);
        if open >= self.limits.per_owner {
            // Reported once per host, not once per owner.
            return Err(self.limiter.refused(Limit::PerOwner, Some(&mut host.reported)));
        }
        host.owners.insert(owner.clone(), open + 1);
        connection.owner = Some(owner);
        Ok(())
    }
}

impl<H: Clone + Eq + Hash, O: Clone + Eq + Hash> Drop for Permit<H, O> {
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        if state.close(self.number).is_some() {
            self.limiter.meter.open.dec();
        }
        // Not at each single connection that closes: the log would repeat itself.
        if state.open.len() <= self.limits.total / 2 {
            state.reported = false;
        }
    }
}

#[cfg(test)]
mod tests;
