//! Redis as daemons need it: done within a deadline, or not.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, ProtocolVersion, RedisError, RedisResult};
use tokio::sync::Mutex;

use super::connect::{connect, no_timeouts};
use crate::redis_client::RedisUrl;
use crate::registry::Call;

/// Longer than this Redis may not take, connecting included.
const REDIS_DEADLINE: Duration = Duration::from_secs(2);

/// One connection, shared by all clients, made anew when it fails.
#[derive(Debug)]
pub struct Store {
    url: RedisUrl,
    connection: Mutex<Option<MultiplexedConnection>>,
    latency: Histogram,
}

/// Why something was not committed. After a timeout it may still be, later.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or refused by Redis.
    #[error("{0} while asking Redis")]
    Redis(#[from] RedisError),
    /// Redis hangs.
    #[error("no reply within {REDIS_DEADLINE:?} while asking Redis")]
    Timeout,
}

/// Error replies of a server that another connection may not get: another server is the master meanwhile, or it has forgotten
/// who asks.
const RECONNECT_CODES: [&str; 4] = ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH"];

impl StoreError {
    /// Whether the connection is of no more use. An ordinary error reply is about what was asked.
    fn ends_connection(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Redis(error) => {
                is_broken(error)
                    || error.is_unrecoverable_error()
                    || RECONNECT_CODES.iter().any(|code| has_code(error, code))
            }
        }
    }
}

/// Whether it is an error reply with this code. Redis before 7 has_code a script's only in the text of the error.
fn has_code(error: &RedisError, code: &str) -> bool {
    error.code() == Some(code) || error.to_string().contains(code)
}

/// The outcome of what Redis was asked, if it comes within [`REDIS_DEADLINE`].
pub(crate) async fn within_deadline<T>(asked: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
    tokio::time::timeout(REDIS_DEADLINE, asked).await.map_err(|_| StoreError::Timeout)?.map_err(StoreError::from)
}

/// Whether a key is of another type than it should be.
pub fn is_wrong_type(error: &RedisError) -> bool {
    has_code(error, "WRONGTYPE")
}

/// What can be sent to Redis, again if need be: doing it twice must be the same as doing it once.
pub trait Idempotent {
    /// What Redis replies.
    type Reply;

    /// Sends it.
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<Self::Reply>> + Send;
}

impl<T: FromRedisValue + Send> Idempotent for Call<T> {
    type Reply = T;

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        self.invoke_async(connection).await
    }
}

/// A command, or a pipeline that ignores errors, whose reply is read as `T`.
#[derive(Debug)]
pub struct Reading<C, T>(C, PhantomData<fn() -> T>);

impl<C, T> Reading<C, T> {
    /// It must change nothing, or the same each time.
    pub fn new(command: C) -> Self {
        Self(command, PhantomData)
    }
}

impl<T: FromRedisValue> Idempotent for Reading<Cmd, T> {
    type Reply = T;

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        self.0.query_async(connection).await
    }
}

impl<T: FromRedisValue> Idempotent for Reading<Pipeline, T> {
    type Reply = T;

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        self.0.query_async(connection).await
    }
}

impl Store {
    /// Connects when it is first needed; `latency` is told how long each answer or failure takes, in seconds.
    pub fn new(url: RedisUrl, latency: Histogram) -> Self {
        Self { url, connection: Mutex::new(None), latency }
    }

    /// Returns when Redis has done it.
    ///
    /// # Errors
    /// It has not, or not within [`REDIS_DEADLINE`].
    pub async fn commit<T: Idempotent>(&self, what: &T) -> Result<T::Reply, StoreError> {
        let started = Instant::now();
        let outcome = within_deadline(async {
            let (mut connection, is_new) = self.connection().await?;
            match what.send(&mut connection).await {
                // It broke since it was last used, as when Redis was restarted.
                Err(error) if !is_new && is_broken(&error) => {
                    self.drop_connection();
                    let (mut connection, _) = self.connection().await?;
                    what.send(&mut connection).await
                }
                outcome => outcome,
            }
        })
        .await;
        self.latency.observe(started.elapsed().as_secs_f64());
        if outcome.as_ref().is_err_and(StoreError::ends_connection) {
            self.drop_connection();
        }
        outcome
    }

    async fn connection(&self) -> RedisResult<(MultiplexedConnection, bool)> {
        let mut cached = self.connection.lock().await;
        if let Some(connection) = &*cached {
            return Ok((connection.clone(), false));
        }
        // The one deadline is that of `commit`.
        let connection = connect(&self.url, ProtocolVersion::RESP2, &no_timeouts()).await?;
        *cached = Some(connection.clone());
        Ok((connection, true))
    }

    fn drop_connection(&self) {
        // Held: somebody is connecting anew already.
        if let Ok(mut cached) = self.connection.try_lock() {
            *cached = None;
        }
    }
}

fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.kind() == ErrorKind::Io
}

#[cfg(test)]
mod tests {
    use super::super::fake_server;
    use super::*;

    #[tokio::test]
    async fn a_connection_is_kept_unless_another_one_may_do_better() {
        for (reply, connections) in [
            ("-WRONGTYPE Operation against a key\r\n", 1),
            ("-ERR unknown command\r\n", 1),
            ("-NOPERM this user has no permissions\r\n", 1),
            ("-MISCONF Redis is configured to save\r\n", 1),
            (":1\r\n", 1),
            ("-READONLY You can't write against a read only replica.\r\n", 3),
            ("-ERR Error running script: @user_script:1: -READONLY You can't write\r\n", 3),
            ("-LOADING Redis is loading the dataset in memory\r\n", 3),
            ("-MASTERDOWN Link with MASTER is down\r\n", 3),
            ("-NOAUTH Authentication required.\r\n", 3),
        ] {
            let (port, received) = fake_server::start(reply).await;
            let url = format!("redis://127.0.0.1:{port}").parse().unwrap();
            let store = Store::new(url, Histogram::new([1.0]));
            for _ in 0..3 {
                let _ = store.commit(&Reading::<_, u64>::new(redis::cmd("DBSIZE"))).await;
            }
            assert_eq!(received.lock().len(), connections, "{reply}");
        }
    }
}
