//! Redis requests of daemons, with one deadline for connecting and reply.

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, ProtocolVersion, RedisError, RedisResult};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;

use super::connect::{Connection, connect, no_timeouts};
use crate::redis_client::RedisUrl;
use crate::registry::Call;

/// Time for one request, including connecting.
const REDIS_DEADLINE: Duration = Duration::from_secs(2);

/// One connection, shared by all callers; it reconnects after failures.
#[derive(Debug)]
pub struct Store {
    url: RedisUrl,
    connection: Mutex<Option<Connection>>,
    /// The attempt to connect. It belongs to no caller: under load, each that waited for it has too little time left for another.
    connecting: AsyncMutex<Option<JoinHandle<Result<Connection, StoreError>>>>,
    connections: AtomicU64,
    latency: Histogram,
}

/// Why Redis did not execute a request. After a timeout, Redis may still execute it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or an error reply.
    #[error("{0} while asking Redis")]
    Redis(RedisError),
    /// The error reply `NOREPLICAS`.
    #[error(
        "the master refuses writes, because fewer replicas are connected to it than its min-replicas-to-write, while asking Redis"
    )]
    TooFewReplicas,
    /// No reply within the deadline.
    #[error("no reply within {REDIS_DEADLINE:?} while asking Redis")]
    Timeout,
}

/// Error replies that a new connection may not get: another server has become the master, or this one has dropped the login.
const RECONNECT_CODES: [&str; 4] = ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH"];

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        if has_code(&error, "NOREPLICAS") { Self::TooFewReplicas } else { Self::Redis(error) }
    }
}

impl StoreError {
    /// Whether the connection is unusable. An ordinary error reply concerns only its request.
    fn ends_connection(&self) -> bool {
        match self {
            Self::Timeout => true,
            // If another server has become the master, the connection closes by itself.
            Self::TooFewReplicas => false,
            Self::Redis(error) => {
                is_broken(error)
                    || error.is_unrecoverable_error()
                    || RECONNECT_CODES.iter().any(|code| has_code(error, code))
            }
        }
    }
}

/// Whether an error reply has this code. Redis before 7 gives the code of a script's error only in its text.
fn has_code(error: &RedisError, code: &str) -> bool {
    error.code() == Some(code) || error.to_string().contains(code)
}

/// Waits for a reply of Redis, at most [`REDIS_DEADLINE`].
pub(crate) async fn within_deadline<T>(reply: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
    tokio::time::timeout(REDIS_DEADLINE, reply).await.map_err(|_| StoreError::Timeout)?.map_err(StoreError::from)
}

/// Whether the error is `WRONGTYPE`: the key has another type than expected.
pub fn is_wrong_type(error: &RedisError) -> bool {
    has_code(error, "WRONGTYPE")
}

/// A request that may be sent again after a failure: executing it twice has the effect of executing it once.
pub trait Idempotent {
    /// The reply's type.
    type Reply;

    /// Sends the request.
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<Self::Reply>> + Send;
}

impl<T: FromRedisValue + Send> Idempotent for Call<T> {
    type Reply = T;

    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        self.invoke_async(connection).await
    }
}

/// A command, or a pipeline that ignores errors; its reply is read as `T`.
#[derive(Debug)]
pub struct Reading<C, T>(C, PhantomData<fn() -> T>);

impl<C, T> Reading<C, T> {
    /// `command` must be read-only or idempotent.
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
    /// Connects on first use; `latency` observes the time until each reply or failure, in seconds.
    pub fn new(url: RedisUrl, latency: Histogram) -> Self {
        let (connection, connecting, connections) = Default::default();
        Self { url, connection, connecting, connections, latency }
    }

    /// Sends a request and waits for its reply. Reconnects once if the connection broke since its last use, also because the
    /// Sentinels have named another master.
    ///
    /// # Errors
    /// No connection, an error reply, or no reply within 2 s.
    pub async fn commit<T: Idempotent>(&self, request: &T) -> Result<T::Reply, StoreError> {
        let started = Instant::now();
        let mut used = None;
        let outcome = tokio::time::timeout(REDIS_DEADLINE, self.send(request, &mut used)).await;
        let outcome = outcome.unwrap_or(Err(StoreError::Timeout));
        self.latency.observe(started.elapsed().as_secs_f64());
        if outcome.as_ref().is_err_and(StoreError::ends_connection) {
            self.discard(used.as_ref());
        }
        outcome
    }

    /// The number of connections until now. A new one may lead to another server, which may lack the last writes.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// `used` is the connection of the latest attempt.
    async fn send<T: Idempotent>(&self, request: &T, used: &mut Option<Connection>) -> Result<T::Reply, StoreError> {
        let (connection, is_new) = self.connection().await?;
        let connection = used.insert(connection);
        match request.send(connection.requests()).await {
            // Broken since its last use, e.g. by a restart of Redis.
            Err(error) if !is_new && is_broken(&error) => {
                self.discard(Some(connection));
                *connection = self.connection().await?.0;
                Ok(request.send(connection.requests()).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// The shared connection, and whether it was opened for this call.
    async fn connection(&self) -> Result<(Connection, bool), StoreError> {
        let cached = || self.connection.lock().clone();
        if let Some(connection) = cached() {
            return Ok((connection, false));
        }
        let mut connecting = self.connecting.lock().await;
        if let Some(connection) = cached() {
            return Ok((connection, false));
        }
        // Nobody waited for its end.
        connecting.take_if(|attempt| attempt.is_finished());
        let is_new = connecting.is_none();
        let outcome = connecting.get_or_insert_with(|| tokio::spawn(attempt(self.url.clone()))).await;
        *connecting = None;
        let connection = outcome.map_err(|panic| RedisError::from(io::Error::other(panic)))??;
        self.connections.fetch_add(1, Relaxed);
        *self.connection.lock() = Some(connection.clone());
        Ok((connection, is_new))
    }

    /// Drops the shared connection, unless it is a newer one.
    fn discard(&self, used: Option<&Connection>) {
        let mut cached = self.connection.lock();
        if let (Some(shared), Some(used)) = (&*cached, used)
            && shared.is_clone_of(used)
        {
            *cached = None;
        }
    }
}

/// Connects within the deadline of a request.
async fn attempt(url: RedisUrl) -> Result<Connection, StoreError> {
    within_deadline(connect(&url, ProtocolVersion::RESP2, &no_timeouts())).await
}

fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.kind() == ErrorKind::Io
}

#[cfg(test)]
mod tests {
    use super::super::fake_server;
    use super::*;

    #[tokio::test]
    async fn callers_with_little_time_left_get_a_connection_together() {
        let (port, _) = fake_server::start_slow("+OK\r\n", Duration::from_millis(300)).await;
        let store = Store::new(format!("redis://:secret@127.0.0.1:{port}").parse().unwrap(), Histogram::new([1.0]));
        let ping = Reading::<_, String>::new(redis::cmd("PING"));
        for _ in 0..200 {
            if let Ok(reply) = tokio::time::timeout(Duration::from_millis(50), store.commit(&ping)).await {
                assert_eq!(reply.unwrap(), "OK");
                assert_eq!(store.connections(), 1);
                return;
            }
        }
        panic!("no connection");
    }

    #[tokio::test]
    async fn connection_is_kept_unless_a_new_one_may_succeed() {
        for (reply, connections) in [
            ("-WRONGTYPE Operation against a key\r\n", 1),
            ("-ERR unknown command\r\n", 1),
            ("-NOPERM this user has no permissions\r\n", 1),
            ("-MISCONF Redis is configured to save\r\n", 1),
            ("-NOREPLICAS Not enough good replicas to write.\r\n", 1),
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
