//! The resync: compares Redis with the database page by page, so that changes continue meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{BATCH_SIZE, ReplicationError, Replicator};
use crate::domains::mapping::{adopt_redis, disown_redis, owns_redis, page_after, unmapped_of};
use crate::domains::replica::Replica;

/// Shortest time between two resyncs that invalidations cause; the time is also at least five times as long as a resync takes.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

impl Replicator {
    /// Makes Redis equal to the database. Domains that only Redis has are removed, unless the guard holds them or they are foreign.
    pub(super) async fn reconcile(&mut self, replica: &mut Replica) -> Result<(), ReplicationError> {
        let started = Instant::now();
        // The comparison finds all earlier writes.
        let _ = replica.take_invalidations();
        // Before any write, as the guard compares the loss with what Redis had.
        let keys = replica.keys().await?;
        let (mut domains, mut written, mut last) = (0, 0, 0);
        loop {
            let page = self.read(move |transaction| page_after(transaction, last, BATCH_SIZE)).await?;
            let differing = replica.differing(&page.mappings).await?;
            if !differing.is_empty() {
                replica.write(&differing).await?;
            }
            (domains, written) = (domains + page.mappings.len(), written + differing.len());
            // Changes committed since the page was read are newer than what was written.
            self.drain(replica).await?;
            match page.last {
                Some(id) => last = id,
                None => break,
            }
        }
        let withdrawn = self.withdraw_unmapped(replica, keys).await?;
        self.config.metrics.count_differences("written", written);
        self.config.metrics.count_differences("withdrawn", withdrawn);
        let took = started.elapsed();
        if written + withdrawn > 0 {
            info!(written, withdrawn, domains, ?took, "Redis differed from the database; corrected");
        } else {
            debug!(domains, ?took, "Redis matches the database");
        }
        let now = Instant::now();
        self.not_before = now + MIN_INTERVAL.max(took * 5);
        self.resync_at = now + self.config.resync_interval;
        Ok(())
    }

    /// Removes the domains that only Redis has, if they may be removed; returns how many were removed.
    async fn withdraw_unmapped(
        &mut self,
        replica: &mut Replica,
        keys: HashSet<Vec<u8>>,
    ) -> Result<usize, ReplicationError> {
        let live = keys.len();
        let unmapped = self.unmapped_among(replica, keys).await?;
        let owns = self.read(owns_redis).await?;
        let now = Instant::now();
        self.config.guard.resume(now);
        let total = unmapped.len();
        let going = if owns {
            self.foreign.clear();
            let verdict = self.config.guard.judge(&unmapped, live, now);
            unmapped.into_iter().filter(|key| verdict.withdraws(key)).collect()
        } else if self.foreign.may_remove(unmapped.len(), now) {
            self.write(adopt_redis).await?;
            unmapped
        } else {
            // Another process may have imported them meanwhile.
            self.write(|transaction| if owns_redis(transaction)? { Ok(()) } else { disown_redis(transaction) }).await?;
            Vec::new()
        };
        self.config.metrics.held.set(i64::try_from(total - going.len()).unwrap_or(i64::MAX));
        let mut withdrawn = 0;
        for some in going.chunks(BATCH_SIZE) {
            // Some may have been mapped meanwhile.
            let some = self.read_unmapped(some.to_vec()).await?;
            if !some.is_empty() {
                withdrawn += replica.remove(&some).await?;
            }
            self.drain(replica).await?;
        }
        Ok(withdrawn)
    }

    async fn unmapped_among(
        &mut self,
        replica: &mut Replica,
        keys: HashSet<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, ReplicationError> {
        let keys: Vec<Vec<u8>> = keys.into_iter().collect();
        let mut unmapped = Vec::new();
        for some in keys.chunks(BATCH_SIZE) {
            unmapped.extend(self.read_unmapped(some.to_vec()).await?);
            self.drain(replica).await?;
        }
        Ok(unmapped)
    }

    async fn read_unmapped(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, ReplicationError> {
        Ok(self.read(move |transaction| unmapped_of(transaction, keys)).await?)
    }
}
