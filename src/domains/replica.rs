//! Redis as a copy of the database: written, compared, and watched for what others do to it.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind,
    RedisResult, Value,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::mapping::Mapping;
use crate::daemon::{REDIS_DEADLINE, StoreError};
use crate::registry::{compare_frontend, frontend_of, scan_frontends, track_frontends, write_frontend};

/// Keys that are asked for with one command.
const PAGE: usize = 1000;
/// More keys than these that others have changed are as good as all.
const MAX_HEARD: usize = 4096;

/// What others have done to Redis since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Their keys.
    pub keys: HashSet<Vec<u8>>,
    /// It may be anything.
    pub everything: bool,
}

/// One connection. After any error it is to be dropped: what was sent may still be done.
#[derive(Debug)]
pub(super) struct Replica {
    connection: MultiplexedConnection,
    ear: Arc<Ear>,
    latency: Histogram,
}

#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Heard>,
    notify: Notify,
}

impl Replica {
    /// Connects, and listens to what others do from then on.
    pub(super) async fn connect(client: &Client, latency: Histogram) -> Result<Self, StoreError> {
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let client = Client::open(info.set_redis_settings(settings).into_connection_info()?)?;
        let ear = Arc::new(Ear::default());
        let listening = Arc::clone(&ear);
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let config = config.set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            listening.hear(push);
            Ok(())
        });
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = within(&latency, connecting).await?;
        let mut replica = Self { connection, ear, latency };
        let tracking = track_frontends();
        let () = replica.ask(async |connection| tracking.query_async(connection).await).await?;
        Ok(replica)
    }

    /// Waits until there is something to be [`heard`](Self::heard).
    pub(super) async fn hear(&self) {
        self.ear.notify.notified().await;
    }

    /// What others have done since the last call.
    pub(super) fn heard(&self) -> Heard {
        std::mem::take(&mut *self.ear.heard.lock())
    }

    /// Whether it still is there.
    pub(super) async fn ping(&mut self) -> Result<(), StoreError> {
        self.ask(async |connection| redis::cmd("PING").query_async(connection).await).await
    }

    /// Makes these domains so, all in one step.
    pub(super) async fn write(&mut self, mappings: &[Mapping]) -> Result<(), StoreError> {
        let mut transaction = redis::pipe();
        transaction.atomic();
        for mapping in mappings {
            write_frontend(&mut transaction, &mapping.domain, &mapping.backends);
        }
        self.ask(async |connection| transaction.query_async(connection).await).await
    }

    /// Removes keys, and tells how many there were.
    pub(super) async fn remove(&mut self, keys: &[Vec<u8>]) -> Result<usize, StoreError> {
        let mut command = redis::cmd("DEL");
        command.arg(keys);
        self.ask(async |connection| command.query_async(connection).await).await
    }

    /// Those of the domains that Redis has otherwise; each has backends.
    pub(super) async fn differing(&mut self, mappings: &[Mapping]) -> Result<Vec<Mapping>, StoreError> {
        if mappings.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for mapping in mappings {
            compare_frontend(&mut pipeline, &mapping.domain, &mapping.backends);
        }
        pipeline.ignore_errors();
        let replies: Vec<Value> = self.ask(async |connection| pipeline.query_async(connection).await).await?;
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

    /// All keys of domains that are there during the whole call; each once.
    pub(super) async fn keys(&mut self) -> Result<HashSet<Vec<u8>>, StoreError> {
        let mut keys = HashSet::new();
        let mut cursor = 0;
        loop {
            let command = scan_frontends(cursor, PAGE);
            let page: (u64, Vec<Vec<u8>>) = self.ask(async |connection| command.query_async(connection).await).await?;
            keys.extend(page.1);
            cursor = page.0;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }

    async fn ask<T>(
        &mut self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        within(&self.latency, send(&mut self.connection)).await
    }
}

impl Ear {
    /// Takes what Redis says of keys that others have changed: their names, or null for all of them.
    fn hear(&self, push: PushInfo) {
        let keys = match (push.kind, push.data.into_iter().next()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => Some(keys),
            (PushKind::Invalidate, _) => None,
            // The next PING fails.
            _ => return,
        };
        let mut heard = self.heard.lock();
        for key in keys.iter().flatten() {
            match key {
                Value::BulkString(key) if heard.keys.len() < MAX_HEARD => {
                    heard.keys.insert(key.clone());
                }
                _ => heard.everything = true,
            }
        }
        heard.everything |= keys.is_none();
        drop(heard);
        self.notify.notify_one();
    }
}

/// Names of the domains among keys; the others are nobody's.
pub(super) fn names_of(keys: &HashSet<Vec<u8>>) -> Vec<String> {
    keys.iter().filter_map(|key| frontend_of(key)).map(str::to_owned).collect()
}

async fn within<T>(latency: &Histogram, asked: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
    let begun = Instant::now();
    let outcome = timeout(REDIS_DEADLINE, asked).await;
    latency.observe(begun.elapsed().as_secs_f64());
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(StoreError::Timeout),
    }
}
