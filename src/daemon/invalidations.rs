//! Invalidations: Redis pushes the names of keys that other clients write (`CLIENT TRACKING ... BCAST`, RESP3).
//!
//! An invalidation is only a hint: its receiver reads the key. Writes during a lost connection are unknown, so after each
//! reconnect every key may have changed.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{ProtocolVersion, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::connect::{Connection, connect, no_timeouts};
use super::store::{StoreError, within_deadline};
use crate::backoff::Backoff;
use crate::redis_client::RedisUrl;
use crate::registry::track_keys;

/// Beyond this many keys, the listener reports that everything may have changed.
const MAX_KEYS: usize = 16_384;
/// Interval of connection checks.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// First and longest delay between attempts to connect.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Keys that other clients have written since the last [`InvalidationListener::take`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invalidations {
    /// The keys' names, at most 16,384.
    pub keys: HashSet<Vec<u8>>,
    /// Any key may have been written before this instant: after a flush, too many keys, or a lost connection.
    pub everything: Option<Instant>,
}

/// Collects the invalidations that Redis pushes; clones share one collection.
#[derive(Clone, Debug, Default)]
pub struct InvalidationListener(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    invalidations: Mutex<Invalidations>,
    notify: Notify,
}

impl InvalidationListener {
    /// Opens a connection that receives invalidations of keys with this prefix. No step has a timeout.
    ///
    /// # Errors
    /// Redis is unreachable, or refuses tracking.
    pub async fn connect(&self, url: &RedisUrl, prefix: &str) -> RedisResult<Connection> {
        let listener = self.clone();
        let config = no_timeouts().set_push_sender(move |push: PushInfo| -> Result<(), Infallible> {
            listener.record(push);
            Ok(())
        });
        let mut connection = connect(url, ProtocolVersion::RESP3, &config).await?;
        let () = track_keys(prefix).query_async(connection.requests()).await?;
        Ok(connection)
    }

    /// Spawns a task that listens on a connection of its own, and reconnects, until all other clones are dropped.
    pub fn spawn(url: RedisUrl, prefix: &'static str) -> Self {
        let listener = Self::default();
        let shared = Arc::downgrade(&listener.0);
        tokio::spawn(async move {
            let mut backoff = Backoff::between(RETRY_DELAYS.0, RETRY_DELAYS.1);
            let mut has_failed = false;
            while let Some(shared) = shared.upgrade() {
                let listener = Self(shared);
                let error = match within_deadline(listener.connect(&url, prefix)).await {
                    Ok(connection) => {
                        listener.invalidate_everything();
                        if std::mem::take(&mut has_failed) {
                            info!(prefix, "Redis sends invalidations again");
                        }
                        backoff.reset();
                        let shared = Arc::downgrade(&listener.0);
                        drop(listener);
                        // Other clones still want invalidations while they hold a reference.
                        match ping_until_unwanted(connection, || shared.strong_count() > 1).await {
                            Ok(()) => return,
                            Err(error) => error,
                        }
                    }
                    Err(error) => error,
                };
                if std::mem::replace(&mut has_failed, true) {
                    debug!(%error, prefix, "Redis still sends no invalidations");
                } else {
                    warn!(%error, prefix, "Redis sends no invalidations; changes by other writers are found at the next resync");
                }
                sleep(backoff.next_delay()).await;
            }
        });
        listener
    }

    /// Waits until there is something to [`take`](Self::take).
    pub async fn changed(&self) {
        self.0.notify.notified().await;
    }

    /// Returns the invalidations since the last call.
    pub fn take(&self) -> Invalidations {
        std::mem::take(&mut *self.0.invalidations.lock())
    }

    fn invalidate_everything(&self) {
        self.0.invalidations.lock().everything = Some(Instant::now());
        self.0.notify.notify_one();
    }

    /// Records a push: the names of keys, or null for all keys.
    fn record(&self, push: PushInfo) {
        let keys = match (push.kind, push.data.into_iter().next()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => Some(keys),
            (PushKind::Invalidate, _) => None,
            // After a disconnect, the next PING fails.
            _ => return,
        };
        let mut shared = self.0.invalidations.lock();
        let mut is_complete = keys.is_some();
        for key in keys.into_iter().flatten() {
            match key {
                Value::BulkString(key) if shared.keys.len() < MAX_KEYS => _ = shared.keys.insert(key),
                _ => is_complete = false,
            }
        }
        if !is_complete {
            shared.everything = Some(Instant::now());
        }
        drop(shared);
        self.0.notify.notify_one();
    }
}

/// Returns an error when the connection is lost, `Ok` when it is no longer wanted.
async fn ping_until_unwanted(mut connection: Connection, is_wanted: impl Fn() -> bool) -> Result<(), StoreError> {
    while is_wanted() {
        // On a closed connection the ping fails.
        let _ = timeout(PING_INTERVAL, connection.closed()).await;
        let ping = redis::cmd("PING");
        let () = within_deadline(ping.query_async(connection.requests())).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: PushKind, data: Value) -> PushInfo {
        PushInfo { kind, data: vec![data] }
    }

    fn names(keys: &[&str]) -> Value {
        Value::Array(keys.iter().map(|key| Value::BulkString(key.as_bytes().to_vec())).collect())
    }

    #[test]
    fn take_returns_each_key_once_and_a_flush_means_everything() {
        let listener = InvalidationListener::default();
        listener.record(push(PushKind::Invalidate, names(&["prefix:a", "prefix:b"])));
        listener.record(push(PushKind::Invalidate, names(&["prefix:a"])));
        let shared = listener.take();
        assert_eq!((shared.keys.len(), shared.everything), (2, None));
        assert_eq!(listener.take(), Invalidations::default());
        listener.record(push(PushKind::Invalidate, Value::Nil));
        assert!(listener.take().everything.is_some());
        listener.record(push(PushKind::Disconnection, Value::Nil));
        assert_eq!(listener.take(), Invalidations::default());
    }

    #[test]
    fn more_keys_than_the_limit_mean_everything() {
        let listener = InvalidationListener::default();
        for number in 0..=MAX_KEYS {
            assert_eq!(listener.0.invalidations.lock().everything, None, "{number}");
            listener.record(push(PushKind::Invalidate, names(&[&format!("prefix:{number}")])));
        }
        let shared = listener.take();
        assert_eq!(shared.keys.len(), MAX_KEYS);
        assert!(shared.everything.is_some());
    }
}
