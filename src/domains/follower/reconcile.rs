//! Comparing everything: page by page, with the database as it is at each, so that changes go on meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{AT_ONCE, FollowError, Follower};
use crate::domains::mapping::{adopt_redis, disown_redis, owns_redis, page_after, unmapped_of};
use crate::domains::replica::Replica;

/// Everything is compared at most so often, and five times as long as it takes lies between two, whatever others do.
const REST: Duration = Duration::from_secs(1);

impl Follower {
    /// Makes Redis have all domains as the database has. What only Redis has goes too, unless that is much or was never the
    /// database's.
    pub(super) async fn reconcile(&mut self, replica: &mut Replica) -> Result<(), FollowError> {
        let begun = Instant::now();
        // What others did before this is seen by it.
        let _ = replica.heard();
        // How much only Redis has is judged by what it had before.
        let keys = replica.keys().await?;
        let (mut domains, mut written, mut last) = (0, 0, 0);
        loop {
            let page = self.read(move |transaction| page_after(transaction, last, AT_ONCE)).await?;
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
        let withdrawn = self.withdraw_strangers(replica, keys).await?;
        self.parts.metrics.differed("written", written);
        self.parts.metrics.differed("withdrawn", withdrawn);
        let took = begun.elapsed();
        if written + withdrawn > 0 {
            info!(written, withdrawn, domains, ?took, "Redis differed from the database, and was put right");
        } else {
            debug!(domains, ?took, "Redis agrees with the database");
        }
        let now = Instant::now();
        self.rested = now + REST.max(took * 5);
        self.due = now + self.parts.resync_interval;
        Ok(())
    }

    /// Removes what only Redis has, if it may go; tells how many went.
    async fn withdraw_strangers(
        &mut self,
        replica: &mut Replica,
        keys: HashSet<Vec<u8>>,
    ) -> Result<usize, FollowError> {
        let live = keys.len();
        let strangers = self.strangers_among(replica, keys).await?;
        let owns = self.read(owns_redis).await?;
        let now = Instant::now();
        self.parts.guard.resume(now);
        let total = strangers.len();
        let going = if owns {
            self.strangers.forget();
            let verdict = self.parts.guard.judge(&strangers, live, now);
            strangers.into_iter().filter(|key| verdict.withdraws(key)).collect()
        } else if self.strangers.judge(strangers.len(), now) {
            self.write(adopt_redis).await?;
            strangers
        } else {
            // Another process may have imported them since.
            self.write(|transaction| if owns_redis(transaction)? { Ok(()) } else { disown_redis(transaction) }).await?;
            Vec::new()
        };
        self.parts.metrics.held.set(i64::try_from(total - going.len()).unwrap_or(i64::MAX));
        let mut withdrawn = 0;
        for some in going.chunks(AT_ONCE) {
            // They may have been mapped meanwhile.
            let some = self.read_unmapped(some.to_vec()).await?;
            if !some.is_empty() {
                withdrawn += replica.remove(&some).await?;
            }
            self.drain(replica).await?;
        }
        Ok(withdrawn)
    }

    async fn strangers_among(
        &mut self,
        replica: &mut Replica,
        keys: HashSet<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, FollowError> {
        let keys: Vec<Vec<u8>> = keys.into_iter().collect();
        let mut strangers = Vec::new();
        for some in keys.chunks(AT_ONCE) {
            strangers.extend(self.read_unmapped(some.to_vec()).await?);
            self.drain(replica).await?;
        }
        Ok(strangers)
    }

    async fn read_unmapped(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, FollowError> {
        Ok(self.read(move |transaction| unmapped_of(transaction, keys)).await?)
    }
}
