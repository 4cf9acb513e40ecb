//! Redis as proxylistener needs it: done within a deadline, or not.

use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult};
use tokio::sync::Mutex;

use super::metrics::Metrics;
use crate::registry::{self, GridRoute, ORIGIN_PREFIX};
use crate::route::ToolName;

/// Keys that one step of a scan looks at.
const SCAN_COUNT: usize = 1000;
/// Longer than this Redis may not take, connecting included.
const DEADLINE: Duration = Duration::from_secs(2);

/// One connection, shared by all clients, made anew after any failure.
#[derive(Debug)]
pub struct Store {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
    metrics: Arc<Metrics>,
}

/// Why something was not committed. After a timeout it may still be, later.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or refused by Redis.
    #[error("{0} while asking Redis")]
    Redis(#[from] RedisError),
    /// Redis hangs.
    #[error("no reply within {DEADLINE:?} while asking Redis")]
    Timeout,
}

/// What can be sent to Redis, again if need be: doing it twice must be the same as doing it once.
pub trait Idempotent {
    /// What Redis replies.
    type Reply;

    /// Sends it.
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<Self::Reply>> + Send;
}

impl Idempotent for Pipeline {
    type Reply = ();

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        self.query_async(connection).await
    }
}

/// A command whose reply is 0 or 1.
impl Idempotent for Cmd {
    type Reply = bool;

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
        let reply: redis::Value = self.query_async(connection).await?;
        Ok(bool::from_redis_value(reply)?)
    }
}

/// A command whose reply is read as `T`.
struct Reading<T>(Cmd, PhantomData<fn() -> T>);

impl<T: FromRedisValue> Idempotent for Reading<T> {
    type Reply = T;

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        self.0.query_async(connection).await
    }
}

impl Store {
    /// Connects when it is first needed.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, connection: Mutex::new(None), metrics }
    }

    /// All tools of which somebody says that he registered a route.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub async fn registered_tools(&self) -> Result<BTreeSet<ToolName>, StoreError> {
        let mut tools = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{ORIGIN_PREFIX}*")).arg("COUNT").arg(SCAN_COUNT);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.commit(&Reading(scan, PhantomData)).await?;
            let names = keys.iter().filter_map(|key| key.strip_prefix(ORIGIN_PREFIX.as_bytes()));
            tools.extend(names.filter_map(|name| ToolName::try_new(name).ok()));
            cursor = next;
            if cursor == 0 {
                return Ok(tools);
            }
        }
    }

    /// Those of a tool's routes that proxylistener wrote; none when its keys are no hashes.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub async fn grid_routes(&self, tool: ToolName) -> Result<Vec<GridRoute>, StoreError> {
        let (routes, origins) =
            (self.hash(registry::routes_key(tool.as_bytes())), self.hash(registry::origin_key(tool.as_bytes())));
        match (routes.await, origins.await) {
            (Ok(routes), Ok(origins)) => Ok(registry::grid_routes(&tool, &routes, origins)),
            (Err(StoreError::Redis(error)), _) | (_, Err(StoreError::Redis(error)))
                if error.code() == Some("WRONGTYPE") =>
            {
                Ok(Vec::new())
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    async fn hash(&self, key: Vec<u8>) -> Result<HashMap<Vec<u8>, Vec<u8>>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(key);
        self.commit(&Reading(command, PhantomData)).await
    }

    /// Returns when Redis has done it.
    ///
    /// # Errors
    /// It has not, or not within [`DEADLINE`].
    pub async fn commit<T: Idempotent>(&self, what: &T) -> Result<T::Reply, StoreError> {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(DEADLINE, async {
            let (mut connection, is_new) = self.connection().await?;
            match what.send(&mut connection).await {
                // It broke since it was last used, as when Redis was restarted.
                Err(error) if !is_new && is_broken(&error) => {
                    self.forget();
                    let (mut connection, _) = self.connection().await?;
                    what.send(&mut connection).await
                }
                outcome => outcome,
            }
        });
        let outcome = match outcome.await {
            Ok(outcome) => outcome.map_err(StoreError::from),
            Err(_) => Err(StoreError::Timeout),
        };
        self.metrics.redis_took(begun.elapsed());
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    async fn connection(&self) -> RedisResult<(MultiplexedConnection, bool)> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok((connection.clone(), false));
        }
        // The one deadline is that of `commit`.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *kept = Some(connection.clone());
        Ok((connection, true))
    }

    fn forget(&self) {
        // Held: somebody is connecting anew already.
        if let Ok(mut kept) = self.connection.try_lock() {
            *kept = None;
        }
    }
}

fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.kind() == ErrorKind::Io
}
