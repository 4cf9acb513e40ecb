//! The memory in Redis, for the one monitor that holds the lock there: two would restart a tool twice as often as it may be.
//!
//! The lock is a key that ends by itself. Its holder renews it; each write is a script that writes only for the holder. One
//! that does not hold it restarts nothing, and takes over when the holder has ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Value, cmd, pipe};
use tokio::task::JoinHandle;
use tracing::error;

use super::keeper_error::KeeperError;
use super::memory::{Memory, Rounds};
use crate::clock;
use crate::daemon::{Reading, Store, StoreError, is_wrong_type};

/// Hash: when each tool was restarted, a JSON array of Unix seconds.
const STARTS: &str = "monitor:starts";
/// String: the rest, as JSON.
const ROUNDS: &str = "monitor:rounds";
/// String: who may write these, `host:pid:number`; it ends by itself.
const LOCK: &str = "monitor:lock";
/// A monitor that was killed is missed for so long.
const LOCK_TIME: Duration = Duration::from_secs(30);

/// Takes the lock `KEYS[1]` for `ARGV[1]`, for `ARGV[2]` ms: who holds it then, and whether that is new.
const CLAIM: &str = "local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {holder, 0} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {ARGV[1], holder and 0 or 1}";
/// The same for one that has it.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";
/// Gives it back.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";
/// Writes `ARGV[4..]`, tools and their restarts, and `ARGV[3]`, the rest, for the holder: who that is, or nobody.
const SAVE: &str = "local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then return holder or '' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[3], ARGV[3])
return holder";

/// Keeps it there.
pub struct RedisKeeper {
    shared: Arc<Shared>,
    /// Keeps the lock while starts take long.
    renewal: Option<JoinHandle<()>>,
}

struct Shared {
    store: Store,
    id: String,
    /// Until when the lock is held without a doubt: until then nobody else can have written.
    held_until: Mutex<Option<Instant>>,
}

impl RedisKeeper {
    /// One for this process. One that only looks never holds the lock.
    pub fn new(store: Store, only_looks: bool) -> Self {
        let shared = Arc::new(Shared { store, id: identity(), held_until: Mutex::new(None) });
        let renewal = (!only_looks).then(|| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { shared.keep_renewing().await })
        });
        Self { shared, renewal }
    }

    /// Takes the lock, or keeps it: whether what this monitor has saved last is what is there.
    ///
    /// # Errors
    /// Another has it; Redis does not answer.
    pub async fn claim(&self) -> Result<bool, KeeperError> {
        if self.renewal.is_none() {
            return Ok(false);
        }
        let shared = &self.shared;
        let asked = Instant::now();
        // Until that is known again. The time is looked at, too: of a reply that was lost the script's second run knows nothing.
        let was_held = shared.hold_until(None).is_some_and(|until| asked < until);
        let (holder, is_new): (String, bool) = shared.run(CLAIM, &[LOCK], Vec::new()).await?;
        if holder != shared.id {
            return Err(KeeperError::Held { holder });
        }
        shared.hold_until(Some(asked + LOCK_TIME));
        Ok(was_held && !is_new)
    }

    /// What is there: see [`Keeper::load`](super::keeper::Keeper::load).
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn load(&self, now: u64, window: Duration) -> Result<Memory, KeeperError> {
        let mut asked = pipe();
        asked.atomic().hgetall(STARTS).get(ROUNDS);
        let found = self.shared.store.commit(&Reading::new(asked)).await;
        let (starts, rounds): (Vec<(String, String)>, Option<String>) = match found {
            Ok(found) => found,
            // Another type than it should be.
            Err(StoreError::Redis(error)) if is_wrong_type(&error) => {
                error!(%error, hold = ?window, "the restarts until now are not known: nothing is restarted for one window");
                return Ok(Memory::lost(now, window));
            }
            Err(error) => return Err(error.into()),
        };
        let understood = || -> Result<Memory, serde_json::Error> {
            let starts = starts.into_iter().map(|(tool, times)| Ok((tool, serde_json::from_str(&times)?)));
            let rounds = rounds.map_or(Ok(Rounds::default()), |rounds| serde_json::from_str(&rounds))?;
            Ok(Memory { starts: starts.collect::<Result<_, serde_json::Error>>()?, rounds })
        };
        understood().or_else(|reason| {
            error!(%reason, keys = "monitor:starts, monitor:rounds", hold = ?window,
                "the restarts until now are not known: nothing is restarted for one window");
            Ok(Memory::lost(now, window))
        })
    }

    /// Writes it, if the lock is still this monitor's.
    ///
    /// # Errors
    /// It is not; Redis does not answer.
    pub async fn save(&self, memory: &Memory) -> Result<(), KeeperError> {
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let mut values = vec![json(serde_json::to_string(&memory.rounds))];
        for (tool, times) in &memory.starts {
            values.push(tool.clone());
            values.push(json(serde_json::to_string(times)));
        }
        let asked = Instant::now();
        let holder: String = self.shared.run(SAVE, &[LOCK, STARTS, ROUNDS], values).await?;
        if holder == self.shared.id {
            self.shared.hold_until(Some(asked + LOCK_TIME));
            return Ok(());
        }
        self.shared.hold_until(None);
        Err(if holder.is_empty() { KeeperError::LockLost } else { KeeperError::Held { holder } })
    }

    /// Gives the lock back, so that the next monitor need not wait until it ends by itself.
    pub async fn release(&self) {
        let Some(renewal) = &self.renewal else { return };
        renewal.abort();
        self.stand_down().await;
    }

    /// The same until it is claimed again.
    pub async fn stand_down(&self) {
        self.shared.hold_until(None);
        // If Redis does not do it, time does.
        let _: Result<Value, _> = self.shared.run(RELEASE, &[LOCK], Vec::new()).await;
    }
}

impl Drop for RedisKeeper {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

impl Shared {
    /// Runs a script with the lock's holder and time before `values`.
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

    /// Notes until when it is held; until when it was.
    fn hold_until(&self, until: Option<Instant>) -> Option<Instant> {
        let mut held = self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, until)
    }

    /// Renews it in time, for as long as this process lives: that the lock is lost, a write finds out.
    async fn keep_renewing(&self) {
        let mut ticks = tokio::time::interval(LOCK_TIME / 3);
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            let renewed: Result<bool, _> = self.run(RENEW, &[LOCK], Vec::new()).await;
            let mut held = self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Ok(true), Some(until)) = (renewed, held.as_mut()) {
                *until = (*until).max(asked + LOCK_TIME);
            }
        }
    }
}

/// `host:pid:number`; no two processes have the same.
fn identity() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let number = clock::unix_time().subsec_nanos();
    format!("{host}:{}:{number}", std::process::id())
}
