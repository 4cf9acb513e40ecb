//! Comparing everything: page by page, with the database as it is at each, so that changes go on meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{BATCH_SIZE, ReplicationError, Replicator};
use crate::domains::mapping::{adopt_redis, disown_redis, owns_redis, page_after, unmapped_of};
use crate::domains::replica::Replica;

/// Everything is compared at most so often, and five times as long as it takes lies between two, whatever others do.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

impl Replicator {
    /// Makes Redis have all domains as the database has. What only Redis has goes too, unless that is much or was never the
    /// database's.
    pub(super) async fn reconcile(&mut self, replica: &mut Replica) -> Result<(), ReplicationError> {
        let begun = Instant::now();
        // What others did before this is seen by it.
        let _ = replica.take_invalidations();
        // How much only Redis has is judged by what it had before.
        let keys = replica.keys().await?;
        let (mut domains, mut written, mut last) = (0, 0, 0);
        loop {
            let page = self.read(move |transaction| page_after(transaction, last, BATCH_SIZE)).await?;
            let differing = replica.differing(&page.mappings).await?;
            if !differing.is_empty() {
                replica.write(&differing).await?;
            }
            (domains, written) = (domains + page.mappings.len(), written + differing.len());
            // What was committed since the page was read is younger than what was written.
            self.drain(replica).await?;
            match page.last {
                Some(id) => last = id,
                None => break,
            }
        }
        let withdrawn = self.withdraw_unmapped(replica, keys).await?;
        self.config.metrics.count_differences("written", written);
        self.config.metrics.count_differences("withdrawn", withdrawn);
        let took = begun.elapsed();
        if written + withdrawn > 0 {
            info!(written, withdrawn, domains, ?took, "Redis differed from the database, and was put right");
        } else {
            debug!(domains, ?took, "Redis agrees with the database");
        }
        let now = Instant::now();
        self.not_before = now + MIN_INTERVAL.max(took * 5);
        self.resync_at = now + self.config.resync_interval;
        Ok(())
    }

    /// Removes what only Redis has, if it may go; tells how many went.
    async fn withdraw_unmapped(
        &mut self,
        replica: &mut Replica,
        keys: HashSet<Vec<u8>>,
    ) -> Result<usize, ReplicationError> {
        let live = keys.len();
        let foreign = self.unmapped_among(replica, keys).await?;
        let owns = self.read(owns_redis).await?;
        let now = Instant::now();
        self.config.guard.resume(now);
        let total = foreign.len();
        let going = if owns {
            self.foreign.clear();
            let verdict = self.config.guard.judge(&foreign, live, now);
            foreign.into_iter().filter(|key| verdict.withdraws(key)).collect()
        } else if self.foreign.judge(foreign.len(), now) {
            self.write(adopt_redis).await?;
            foreign
        } else {
            // Another process may have imported them since.
            self.write(|transaction| if owns_redis(transaction)? { Ok(()) } else { disown_redis(transaction) }).await?;
            Vec::new()
        };
        self.config.metrics.held.set(i64::try_from(total - going.len()).unwrap_or(i64::MAX));
        let mut withdrawn = 0;
        for some in going.chunks(BATCH_SIZE) {
            // They may have been mapped meanwhile.
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
        let mut foreign = Vec::new();
        for some in keys.chunks(BATCH_SIZE) {
            foreign.extend(self.read_unmapped(some.to_vec()).await?);
            self.drain(replica).await?;
        }
        Ok(foreign)
    }

    async fn read_unmapped(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, ReplicationError> {
        Ok(self.read(move |transaction| unmapped_of(transaction, keys)).await?)
    }
}
