//! Replicates the database to Redis: the only task that writes there.

mod reconcile;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::database::{Database, DatabaseError};
use super::foreign_domains::ForeignDomains;
use super::mapping::{Mapping, backends_of, count_domains, owns_redis};
use super::metrics::Metrics;
use super::outbox;
use super::replica::{Replica, names_of};
use crate::backoff::Backoff;
use crate::daemon::{Invalidations, LoggedGuard, Readiness, StoreError};
use crate::redis_client::RedisUrl;
use crate::registry::frontend_of;

/// Domains written or compared in one round trip.
const BATCH_SIZE: usize = 500;
/// Interval of checks for changes by other processes, and for a lost connection.
const TICK: Duration = Duration::from_secs(1);
/// First and longest delay before changes of other writers are overwritten: two writers of one key must not busy Redis.
const REPAIR_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// After this long without a repair, the delay starts over.
const QUIET_PERIOD: Duration = Duration::from_secs(10);

/// Progress of the replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Redis has the outbox up to this number.
    pub seq: i64,
    /// False while Redis is unavailable.
    pub is_replicating: bool,
}

/// What the replicator needs.
pub(super) struct Config {
    pub database: Database,
    pub redis: RedisUrl,
    pub guard: LoggedGuard,
    pub resync_interval: Duration,
    pub changed: Arc<Notify>,
    pub progress: watch::Sender<Progress>,
    pub readiness: Readiness,
    pub metrics: Metrics,
}

/// Why the replication fails.
#[derive(Debug, thiserror::Error)]
enum ReplicationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

struct Replicator {
    config: Config,
    foreign: ForeignDomains,
    /// Time of the next resync.
    resync_at: Instant,
    /// Earliest time of the next resync.
    not_before: Instant,
    repair_backoff: Backoff,
    /// When the keys that other writers have changed are repaired.
    repair_at: Option<Instant>,
    last_repair: Option<Instant>,
}

/// Keeps Redis in step until `stop`, then writes the changes committed before, if Redis is available.
pub(super) async fn replicate(config: Config, stop: impl Future<Output = ()>) {
    let now = Instant::now();
    let foreign = ForeignDomains::new(config.guard.settings().map(|settings| settings.accept.clone()));
    let repair_backoff = Backoff::between(REPAIR_BACKOFF.0, REPAIR_BACKOFF.1);
    let mut replicator = Replicator {
        config,
        foreign,
        resync_at: now,
        not_before: now,
        repair_backoff,
        repair_at: None,
        last_repair: None,
    };
    let mut stop = std::pin::pin!(stop);
    let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(2));
    let mut has_failed = false;
    loop {
        let error = match replicator.replicate_once(stop.as_mut(), &mut has_failed).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if replicator
            .config
            .progress
            .send_replace(Progress { is_replicating: false, ..replicator.progress() })
            .is_replicating
        {
            backoff.reset();
        }
        replicator.config.metrics.following.set(0);
        replicator.config.guard.pause();
        if std::mem::replace(&mut has_failed, true) {
            debug!(%error, "replication to Redis still failing");
        } else {
            warn!(%error, "replication to Redis failing; changes queued");
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = stop.as_mut() => return,
        }
        let _ = replicator.update_gauges().await;
    }
}

impl Replicator {
    fn progress(&self) -> Progress {
        *self.config.progress.borrow()
    }

    /// Replicates until `stop` or an error.
    async fn replicate_once(
        &mut self,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
        has_failed: &mut bool,
    ) -> Result<(), ReplicationError> {
        self.repair_at = None;
        let mut replica = Replica::connect(&self.config.redis, self.config.metrics.redis.clone()).await?;
        // First, as acknowledged deletions are not subject to the guard.
        self.drain(&mut replica).await?;
        self.config.progress.send_modify(|progress| progress.is_replicating = true);
        self.reconcile(&mut replica).await?;
        self.config.metrics.following.set(1);
        self.config.readiness.set(true);
        if std::mem::take(has_failed) {
            info!("replication to Redis restored");
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.config.changed.notified() => self.drain(&mut replica).await?,
                () = replica.invalidated(), if self.repair_at.is_none() => self.repair_at = Some(self.next_repair()),
                () = sleep_until(self.repair_at.unwrap_or(self.resync_at)), if self.repair_at.is_some() => {
                    self.repair(&mut replica).await?;
                }
                () = sleep_until(self.resync_at) => self.reconcile(&mut replica).await?,
                _ = ticks.tick() => self.tick(&mut replica).await?,
                // The error follows.
                () = replica.closed() => replica.ping().await?,
                () = stop.as_mut() => {
                    if let Err(error) = self.drain(&mut replica).await {
                        warn!(%error, "last changes not replicated; queued for the next start");
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Writes the queued changes.
    async fn drain(&mut self, replica: &mut Replica) -> Result<(), ReplicationError> {
        loop {
            let batch = self.read(|transaction| outbox::read(transaction, BATCH_SIZE)).await?;
            if batch.mappings.is_empty() {
                return Ok(());
            }
            replica.write(&batch.mappings).await?;
            self.config.progress.send_modify(|progress| progress.seq = batch.seq);
            self.write(move |transaction| outbox::remove(transaction, batch.seq)).await?;
        }
    }

    async fn tick(&mut self, replica: &mut Replica) -> Result<(), ReplicationError> {
        self.drain(replica).await?;
        replica.ping().await?;
        self.update_gauges().await?;
        // Another process may have imported the foreign domains.
        let are_ours = self.foreign.are_present() && self.read(owns_redis).await?;
        if are_ours || self.config.guard.is_over(Instant::now()) || self.foreign.are_accepted(Instant::now()) {
            self.resync_at = Instant::now();
        }
        Ok(())
    }

    async fn update_gauges(&self) -> Result<(), ReplicationError> {
        let counted = self.read(|transaction| Ok((count_domains(transaction)?, outbox::len(transaction)?))).await?;
        self.config.metrics.domains.set(counted.0);
        self.config.metrics.waiting.set(counted.1);
        Ok(())
    }

    fn next_repair(&mut self) -> Instant {
        if self.last_repair.is_none_or(|at| at.elapsed() > QUIET_PERIOD) {
            self.repair_backoff.reset();
        }
        Instant::now() + self.repair_backoff.next_delay()
    }

    /// Repairs the keys that other writers have changed.
    async fn repair(&mut self, replica: &mut Replica) -> Result<(), ReplicationError> {
        self.repair_at = None;
        let Invalidations { keys, everything } = replica.take_invalidations();
        if everything.is_some() {
            self.schedule_reconcile();
            return Ok(());
        }
        let names = names_of(&keys);
        let known = self.read(move |transaction| mapped_among(transaction, names)).await?;
        let differing = replica.differing(&known).await?;
        if !differing.is_empty() {
            replica.write(&differing).await?;
            self.config.metrics.count_differences("written", differing.len());
            self.log_overwritten(differing.first().map_or("", |mapping| &mapping.domain), differing.len());
        }
        let ours: HashSet<&str> = known.iter().map(|mapping| &*mapping.domain).collect();
        if keys.iter().any(|key| frontend_of(key).is_none_or(|domain| !ours.contains(domain))) {
            // Whether unmapped keys may be removed takes a look at all keys.
            self.schedule_reconcile();
        }
        Ok(())
    }

    fn log_overwritten(&mut self, domain: &str, domains: usize) {
        let is_first = self.last_repair.is_none_or(|at| at.elapsed() > QUIET_PERIOD);
        self.last_repair = Some(Instant::now());
        if is_first {
            warn!(domain, domains, "another writer changed domains in Redis; overwritten from the database");
        } else {
            debug!(domain, domains, "domains in Redis overwritten again");
        }
    }

    fn schedule_reconcile(&mut self) {
        self.resync_at = self.resync_at.min(self.not_before.max(Instant::now()));
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.config.database.blocking(move |database| database.read(work)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let write = move |database: &Database| database.write(work).map_err(|error| database.failed(error));
        self.config.database.blocking(write).await
    }
}

/// The mappings of those names that are mapped.
fn mapped_among(transaction: &rusqlite::Transaction<'_>, names: Vec<String>) -> rusqlite::Result<Vec<Mapping>> {
    let mut known = Vec::new();
    for domain in names {
        let backends = backends_of(transaction, &domain)?;
        if !backends.is_empty() {
            known.push(Mapping { domain, backends });
        }
    }
    Ok(known)
}
