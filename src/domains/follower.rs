//! Has Redis follow the database: the one task that writes there.

mod reconcile;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::database::{Database, DatabaseError};
use super::mapping::{Mapping, backends_of, count_domains, owns_redis};
use super::metrics::Metrics;
use super::outbox;
use super::replica::{Replica, names_of};
use super::strangers::Strangers;
use crate::backoff::Backoff;
use crate::daemon::{Guard, Invalidations, Readiness, StoreError};
use crate::redis_client::RedisUrl;
use crate::registry::frontend_of;

/// Domains that are written or compared with one round trip.
const AT_ONCE: usize = 500;
/// How often it is looked whether another process has changed the database, or Redis is gone.
const TICK: Duration = Duration::from_secs(1);
/// The waits before what others have changed is written over: whoever fights for a key does not do so for ever in no time.
const MENDS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// After so long without, the next is mended at once.
const PEACE: Duration = Duration::from_secs(10);

/// How far Redis is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// It has all of the outbox up to here.
    pub seq: i64,
    /// False while it can't be told.
    pub is_following: bool,
}

/// What the follower goes by.
pub(super) struct Parts {
    pub database: Database,
    pub redis: RedisUrl,
    pub guard: Guard,
    pub resync_interval: Duration,
    pub changed: Arc<Notify>,
    pub progress: watch::Sender<Progress>,
    pub readiness: Readiness,
    pub metrics: Metrics,
}

/// Why Redis does not follow.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

struct Follower {
    parts: Parts,
    strangers: Strangers,
    /// When everything is compared next.
    due: Instant,
    /// Not before this.
    rested: Instant,
    mends: Backoff,
    /// When what others have changed is looked at.
    mend_at: Option<Instant>,
    last_mend: Option<Instant>,
}

/// Keeps Redis in step until `stop`; what was committed before is written then, if Redis takes it.
pub(super) async fn follow(parts: Parts, stop: impl Future<Output = ()>) {
    let now = Instant::now();
    let strangers = Strangers::new(parts.guard.settings().map(|settings| settings.accept.clone()));
    let mends = Backoff::between(MENDS.0, MENDS.1);
    let mut follower = Follower { parts, strangers, due: now, rested: now, mends, mend_at: None, last_mend: None };
    let mut stop = std::pin::pin!(stop);
    let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(2));
    let mut has_failed = false;
    loop {
        let error = match follower.follow_once(stop.as_mut(), &mut has_failed).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if follower.parts.progress.send_replace(Progress { is_following: false, ..follower.progress() }).is_following {
            backoff.reset();
        }
        follower.parts.metrics.following.set(0);
        follower.parts.guard.pause();
        if std::mem::replace(&mut has_failed, true) {
            debug!(%error, "Redis still does not follow");
        } else {
            warn!(%error, "Redis does not follow the database; changes are kept for it");
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = stop.as_mut() => return,
        }
        let _ = follower.count().await;
    }
}

impl Follower {
    fn progress(&self) -> Progress {
        *self.parts.progress.borrow()
    }

    /// Follows until `stop`, or an error.
    async fn follow_once(
        &mut self,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
        has_failed: &mut bool,
    ) -> Result<(), FollowError> {
        self.mend_at = None;
        let mut replica = Replica::connect(&self.parts.redis, self.parts.metrics.redis.clone()).await?;
        // Deletions that were acknowledged go first: nothing holds them.
        self.drain(&mut replica).await?;
        self.parts.progress.send_modify(|progress| progress.is_following = true);
        self.reconcile(&mut replica).await?;
        self.parts.metrics.following.set(1);
        self.parts.readiness.set(true);
        if std::mem::take(has_failed) {
            info!("Redis follows the database again");
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.parts.changed.notified() => self.drain(&mut replica).await?,
                () = replica.hear(), if self.mend_at.is_none() => self.mend_at = Some(self.next_mend()),
                () = sleep_until(self.mend_at.unwrap_or(self.due)), if self.mend_at.is_some() => {
                    self.mend(&mut replica).await?;
                }
                () = sleep_until(self.due) => self.reconcile(&mut replica).await?,
                _ = ticks.tick() => self.tick(&mut replica).await?,
                () = stop.as_mut() => {
                    if let Err(error) = self.drain(&mut replica).await {
                        warn!(%error, "Redis was not told of the last changes; they are kept for it");
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Writes what has changed since.
    async fn drain(&mut self, replica: &mut Replica) -> Result<(), FollowError> {
        loop {
            let batch = self.read(|transaction| outbox::read(transaction, AT_ONCE)).await?;
            if batch.mappings.is_empty() {
                return Ok(());
            }
            replica.write(&batch.mappings).await?;
            self.parts.progress.send_modify(|progress| progress.seq = batch.seq);
            self.write(move |transaction| outbox::remove(transaction, batch.seq)).await?;
        }
    }

    async fn tick(&mut self, replica: &mut Replica) -> Result<(), FollowError> {
        self.drain(replica).await?;
        replica.ping().await?;
        self.count().await?;
        // Another process may have imported them.
        let are_ours = self.strangers.are_known() && self.read(owns_redis).await?;
        if are_ours || self.parts.guard.is_over(Instant::now()) || self.strangers.are_accepted(Instant::now()) {
            self.due = Instant::now();
        }
        Ok(())
    }

    async fn count(&self) -> Result<(), FollowError> {
        let counted = self.read(|transaction| Ok((count_domains(transaction)?, outbox::len(transaction)?))).await?;
        self.parts.metrics.domains.set(counted.0);
        self.parts.metrics.waiting.set(counted.1);
        Ok(())
    }

    fn next_mend(&mut self) -> Instant {
        if self.last_mend.is_none_or(|at| at.elapsed() > PEACE) {
            self.mends.reset();
        }
        Instant::now() + self.mends.next_delay()
    }

    /// Looks at the keys that others have changed.
    async fn mend(&mut self, replica: &mut Replica) -> Result<(), FollowError> {
        self.mend_at = None;
        let Invalidations { keys, everything } = replica.heard();
        if everything.is_some() {
            self.reconcile_soon();
            return Ok(());
        }
        let names = names_of(&keys);
        let known = self.read(move |transaction| known_of(transaction, names)).await?;
        let differing = replica.differing(&known).await?;
        if !differing.is_empty() {
            replica.write(&differing).await?;
            self.parts.metrics.differed("written", differing.len());
            self.fought_for(differing.first().map_or("", |mapping| &mapping.domain), differing.len());
        }
        let ours: HashSet<&str> = known.iter().map(|mapping| &*mapping.domain).collect();
        if keys.iter().any(|key| frontend_of(key).is_none_or(|domain| !ours.contains(domain))) {
            // Whether they may go depends on all that there is.
            self.reconcile_soon();
        }
        Ok(())
    }

    fn fought_for(&mut self, domain: &str, domains: usize) {
        let is_first = self.last_mend.is_none_or(|at| at.elapsed() > PEACE);
        self.last_mend = Some(Instant::now());
        if is_first {
            warn!(domain, domains, "somebody else writes domains in this Redis; they were written over");
        } else {
            debug!(domain, domains, "written over");
        }
    }

    fn reconcile_soon(&mut self) {
        self.due = self.due.min(self.rested.max(Instant::now()));
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.parts.database.blocking(move |database| database.read(work)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let write = move |database: &Database| database.write(work).map_err(|error| database.failed(error));
        self.parts.database.blocking(write).await
    }
}

/// Those of the names that are mapped.
fn known_of(transaction: &rusqlite::Transaction<'_>, names: Vec<String>) -> rusqlite::Result<Vec<Mapping>> {
    let mut known = Vec::new();
    for domain in names {
        let backends = backends_of(transaction, &domain)?;
        if !backends.is_empty() {
            known.push(Mapping { domain, backends });
        }
    }
    Ok(known)
}
