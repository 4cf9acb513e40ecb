//! Keeps the log of changes small, a little at a time, so that no change waits for it.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::audit::{self, Limits, Pruned};
use super::database::{Database, DatabaseError};
use super::metrics::Metrics;

/// Between two looks at the log's size.
const INTERVAL: Duration = Duration::from_secs(10);
/// The least pause between two steps; it is as long as the step was if that is longer, so that changes have half of the time at least.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Prunes for as long as it is polled.
pub(super) async fn prune(database: Database, max_bytes: u64, metrics: Metrics) {
    let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
    let mut has_failed = false;
    loop {
        match prune_once(&database, max_bytes, &metrics).await {
            Ok(rows) => {
                has_failed = false;
                if rows > 0 {
                    info!(rows, "old entries of the log of changes removed");
                }
            }
            Err(error) if std::mem::replace(&mut has_failed, true) => debug!(%error, "the log of changes still grows"),
            Err(error) => warn!(%error, "the log of changes was not pruned; trying again"),
        }
        sleep(INTERVAL).await;
    }
}

/// Removes step by step what is too old or too much: so many rows.
async fn prune_once(database: &Database, max_bytes: i64, metrics: &Metrics) -> Result<usize, DatabaseError> {
    let mut rows = 0;
    loop {
        let limits = Limits::now(max_bytes);
        let plan_prune = move |database: &Database| database.read(|transaction| audit::plan_prune(transaction, limits));
        let plan = database.blocking(plan_prune).await?;
        metrics.audit_bytes.set(plan.bytes);
        if plan.last.is_none() {
            return Ok(rows);
        }
        let begun = Instant::now();
        let step = move |database: &Database| {
            database.write(|transaction| audit::prune(transaction, limits)).map_err(|error| database.failed(error))
        };
        let Pruned { rows: removed, .. } = database.blocking(step).await?;
        rows += removed;
        sleep(begun.elapsed().max(MIN_PAUSE)).await;
    }
}
