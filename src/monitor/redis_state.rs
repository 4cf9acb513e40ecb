//! The restart history in Redis, for the one monitor that holds the lock: two monitors would exceed the limit of restarts.
//!
//! The lock is a key that expires. Its holder renews it, and each write is a script that writes only for the holder. Other
//! monitors restart nothing, and one takes over when the holder ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Value, cmd, pipe};
use tokio::task::JoinHandle;
use tracing::error;

use super::restart_history::{RestartHistory, RoundState};
use super::state_error::StateError;
use crate::clock;
use crate::daemon::{Reading, Store, StoreError, is_wrong_type};

/// Hash: tool to its restarts, a JSON array of Unix seconds.
const STARTS: &str = "monitor:starts";
/// String: [`RoundState`] as JSON.
const ROUNDS: &str = "monitor:rounds";
/// String: the holder of the lock, `host:pid:number`; it expires.
const LOCK: &str = "monitor:lock";
/// The lock expires this long after its last renewal.
const LOCK_TIME: Duration = Duration::from_secs(30);

/// Acquires the lock `KEYS[1]` for `ARGV[1]`, for `ARGV[2]` ms. Returns the holder, and whether the lock is new.
const ACQUIRE: &str = "local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {holder, 0} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {ARGV[1], holder and 0 or 1}";
/// Renews the lock, for its holder only.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";
/// Releases the lock, for its holder only.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";
/// Writes `ARGV[4..]`, tools and their restarts, and `ARGV[3]`, the round state, for the holder only. Returns the holder, or an
/// empty string.
const SAVE: &str = "local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then return holder or '' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[3], ARGV[3])
return holder";

/// The restart history in Redis.
pub struct RedisState {
    shared: Arc<Shared>,
    /// Renews the lock while starts take long; `None` if the store is read-only.
    renewal: Option<JoinHandle<()>>,
}

struct Shared {
    store: Store,
    id: String,
    /// Until when the lock is certainly held, so that no other monitor can have written.
    held_until: Mutex<Option<Instant>>,
}

impl RedisState {
    /// A read-only one never acquires the lock.
    pub fn new(store: Store, is_read_only: bool) -> Self {
        let shared = Arc::new(Shared { store, id: identity(), held_until: Mutex::new(None) });
        let renewal = (!is_read_only).then(|| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { shared.keep_renewing().await })
        });
        Self { shared, renewal }
    }

    /// See [`StateStore::acquire`](super::state_store::StateStore::acquire).
    pub async fn acquire(&self) -> Result<bool, StateError> {
        if self.renewal.is_none() {
            return Ok(false);
        }
        let shared = &self.shared;
        let requested_at = Instant::now();
        // Not certain until the reply. The time matters too: after a lost reply the retried script reports an existing lock.
        let was_held = shared.set_held_until(None).is_some_and(|until| requested_at < until);
        let (holder, is_new): (String, bool) = shared.run(ACQUIRE, &[LOCK], Vec::new()).await?;
        if holder != shared.id {
            return Err(StateError::Held { holder });
        }
        shared.set_held_until(Some(requested_at + LOCK_TIME));
        Ok(was_held && !is_new)
    }

    /// See [`StateStore::load`](super::state_store::StateStore::load).
    pub async fn load(&self, now: u64, window: Duration) -> Result<RestartHistory, StateError> {
        let mut request = pipe();
        request.atomic().hgetall(STARTS).get(ROUNDS);
        let found = self.shared.store.commit(&Reading::new(request)).await;
        let (starts, rounds): (Vec<(String, String)>, Option<String>) = match found {
            Ok(found) => found,
            // A key has a wrong type.
            Err(StoreError::Redis(error)) if is_wrong_type(&error) => {
                error!(%error, window = ?window, "restart history is corrupt; nothing is restarted for one window, or until the accept file is touched");
                return Ok(RestartHistory::lost(now, window));
            }
            Err(error) => return Err(error.into()),
        };
        let parse = || -> Result<RestartHistory, serde_json::Error> {
            let starts = starts.into_iter().map(|(tool, times)| Ok((tool, serde_json::from_str(&times)?)));
            let rounds = rounds.map_or(Ok(RoundState::default()), |rounds| serde_json::from_str(&rounds))?;
            Ok(RestartHistory { starts: starts.collect::<Result<_, serde_json::Error>>()?, rounds })
        };
        parse().or_else(|error| {
            error!(%error, keys = "monitor:starts, monitor:rounds", window = ?window,
                "restart history is corrupt; nothing is restarted for one window, or until the accept file is touched");
            Ok(RestartHistory::lost(now, window))
        })
    }

    /// Saves the history, if this monitor still holds the lock.
    ///
    /// # Errors
    /// The lock is lost, or Redis fails.
    pub async fn save(&self, history: &RestartHistory) -> Result<(), StateError> {
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let mut values = vec![json(serde_json::to_string(&history.rounds))];
        for (tool, times) in &history.starts {
            values.push(tool.clone());
            values.push(json(serde_json::to_string(times)));
        }
        let requested_at = Instant::now();
        let holder: String = self.shared.run(SAVE, &[LOCK, STARTS, ROUNDS], values).await?;
        if holder == self.shared.id {
            self.shared.set_held_until(Some(requested_at + LOCK_TIME));
            return Ok(());
        }
        self.shared.set_held_until(None);
        Err(if holder.is_empty() { StateError::LockLost } else { StateError::Held { holder } })
    }

    /// Releases the lock for good, so that the next monitor need not wait until it expires.
    pub async fn release(&self) {
        let Some(renewal) = &self.renewal else { return };
        renewal.abort();
        self.step_down().await;
    }

    /// Releases the lock until the next [`Self::acquire`].
    pub async fn step_down(&self) {
        self.shared.set_held_until(None);
        // After a failure the lock expires.
        let _: Result<Value, _> = self.shared.run(RELEASE, &[LOCK], Vec::new()).await;
    }
}

impl Drop for RedisState {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

impl Shared {
    /// Runs a script; the arguments are the lock's holder, the lock's time, and `values`.
    async fn run<T: redis::FromRedisValue>(
        &self,
        script: &str,
        keys: &[&str],
        values: Vec<String>,
    ) -> Result<T, StoreError> {
        let mut command = cmd("EVAL");
        command.arg(script).arg(keys.len()).arg(keys).arg(&self.id).arg(LOCK_TIME.as_millis() as u64).arg(values);
        self.store.commit(&Reading::new(command)).await
    }

    /// Sets the time until which the lock is held. Returns the previous one.
    fn set_held_until(&self, until: Option<Instant>) -> Option<Instant> {
        let mut held = self.held_until.lock();
        std::mem::replace(&mut held, until)
    }

    /// Renews the lock periodically. A lost lock is noticed by the next write.
    async fn keep_renewing(&self) {
        let mut ticks = tokio::time::interval(LOCK_TIME / 3);
        loop {
            ticks.tick().await;
            let requested_at = Instant::now();
            let renewed: Result<bool, _> = self.run(RENEW, &[LOCK], Vec::new()).await;
            let mut held = self.held_until.lock();
            if let (Ok(true), Some(until)) = (renewed, held.as_mut()) {
                *until = (*until).max(requested_at + LOCK_TIME);
            }
        }
    }
}

/// A unique name of this process, `host:pid:number`.
fn identity() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let number = clock::unix_time().subsec_nanos();
    format!("{host}:{}:{number}", std::process::id())
}
