//! Prunes the audit log in small steps, so that changes hardly wait for it.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::audit::{self, Limits, Pruned};
use super::database::{Database, DatabaseError};
use super::metrics::Metrics;

/// Interval of checks of the log's size.
const INTERVAL: Duration = Duration::from_secs(10);
/// Shortest pause between two steps. A pause is at least as long as the step before it, so that changes get half of the time.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Prunes in the background; never returns.
pub(super) async fn prune(database: Database, max_bytes: u64, metrics: Metrics) {
    let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
    let mut has_failed = false;
    loop {
        match prune_once(&database, max_bytes, &metrics).await {
            Ok(rows) => {
                has_failed = false;
                if rows > 0 {
                    info!(rows, "old entries removed from the audit log");
                }
            }
            Err(error) if std::mem::replace(&mut has_failed, true) => {
                debug!(%error, "pruning the audit log still failing")
            }
            Err(error) => warn!(%error, "pruning the audit log failed; retrying"),
        }
        sleep(INTERVAL).await;
    }
}

/// Removes old and excess rows step by step; returns the number of removed rows.
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
        let started = Instant::now();
        let step = move |database: &Database| {
            database.write(|transaction| audit::prune(transaction, limits)).map_err(|error| database.failed(error))
        };
        let Pruned { rows: removed, .. } = database.blocking(step).await?;
        rows += removed;
        sleep(started.elapsed().max(MIN_PAUSE)).await;
    }
}
