//! The replica of the database in Redis: writes and compares it, and receives invalidations of other writers' changes.

use std::collections::HashSet;
use std::future::Future;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Value};

use super::mapping::Mapping;
use crate::daemon::{Connection, InvalidationListener, Invalidations, StoreError, within_deadline};
use crate::redis_client::RedisUrl;
use crate::registry::{DOMAINS_PREFIX, compare_frontend, frontend_of, scan_frontends, write_frontend};

/// `COUNT` of each SCAN.
const SCAN_COUNT: usize = 1000;

/// A connection to Redis. After any error, drop it: Redis may still execute what was sent.
#[derive(Debug)]
pub(super) struct Replica {
    connection: Connection,
    listener: InvalidationListener,
    latency: Histogram,
}

impl Replica {
    /// Connects, and receives invalidations from then on.
    pub(super) async fn connect(url: &RedisUrl, latency: Histogram) -> Result<Self, StoreError> {
        let listener = InvalidationListener::default();
        let connection = timed(&latency, listener.connect(url, DOMAINS_PREFIX)).await?;
        Ok(Self { connection, listener, latency })
    }

    /// Waits until there are invalidations to [take](Self::take_invalidations).
    pub(super) async fn invalidated(&self) {
        self.listener.changed().await;
    }

    /// Returns the invalidations since the last call.
    pub(super) fn take_invalidations(&self) -> Invalidations {
        self.listener.take()
    }

    /// Waits until the connection is closed, e.g. because Sentinels name another master.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Checks the connection.
    pub(super) async fn ping(&mut self) -> Result<(), StoreError> {
        self.request(async |connection| redis::cmd("PING").query_async(connection).await).await
    }

    /// Writes these mappings in one transaction.
    pub(super) async fn write(&mut self, mappings: &[Mapping]) -> Result<(), StoreError> {
        let mut transaction = redis::pipe();
        transaction.atomic();
        for mapping in mappings {
            write_frontend(&mut transaction, &mapping.domain, &mapping.backends);
        }
        self.request(async |connection| transaction.query_async(connection).await).await
    }

    /// Removes keys; returns how many existed.
    pub(super) async fn remove(&mut self, keys: &[Vec<u8>]) -> Result<usize, StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(keys);
        self.request(async |connection| command.query_async(connection).await).await
    }

    /// Returns the mappings that differ in Redis. Each mapping must have backends.
    pub(super) async fn differing(&mut self, mappings: &[Mapping]) -> Result<Vec<Mapping>, StoreError> {
        if mappings.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for mapping in mappings {
            compare_frontend(&mut pipeline, &mapping.domain, &mapping.backends);
        }
        pipeline.ignore_errors();
        let replies: Vec<Value> = self.request(async |connection| pipeline.query_async(connection).await).await?;
        let is_same = |pair: &[Value], backends: &[String]| {
            let [members, count] = pair else { return false };
            let members = Vec::<bool>::from_redis_value(members.clone()).unwrap_or_default();
            let count = usize::from_redis_value(count.clone()).ok();
            count == Some(backends.len()) && members.len() == backends.len() && members.iter().all(|&is_there| is_there)
        };
        let pairs = replies.chunks(2).map(Some).chain(std::iter::repeat(None));
        let differs =
            mappings.iter().zip(pairs).filter(|(m, pair)| !pair.is_some_and(|pair| is_same(pair, &m.backends)));
        Ok(differs.map(|(mapping, _)| mapping.clone()).collect())
    }

    /// All keys of domains; keys that are written or removed during the call may be missing.
    pub(super) async fn keys(&mut self) -> Result<HashSet<Vec<u8>>, StoreError> {
        let mut keys = HashSet::new();
        let mut cursor = 0;
        loop {
            let command = scan_frontends(cursor, SCAN_COUNT);
            let page: (u64, Vec<Vec<u8>>) =
                self.request(async |connection| command.query_async(connection).await).await?;
            keys.extend(page.1);
            cursor = page.0;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }

    async fn request<T>(
        &mut self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        timed(&self.latency, send(self.connection.requests())).await
    }
}

/// The domains among `keys`; ignores invalid keys.
pub(super) fn names_of(keys: &HashSet<Vec<u8>>) -> Vec<String> {
    keys.iter().filter_map(|key| frontend_of(key)).map(str::to_owned).collect()
}

async fn timed<T>(latency: &Histogram, reply: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
    let started = Instant::now();
    let outcome = within_deadline(reply).await;
    latency.observe(started.elapsed().as_secs_f64());
    outcome
}
