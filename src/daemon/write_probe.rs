//! Probes whether Redis accepts writes, even while no client makes requests.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::status::Readiness;
use super::store::{Reading, Store, StoreError};
use crate::registry::ADDRESSES_KEY;

/// Interval of probes.
const INTERVAL: Duration = Duration::from_secs(2);

/// Sets `readiness` to whether Redis accepts writes, and logs each change. Never returns.
pub async fn probe_writes(store: &Store, readiness: &Readiness) {
    let mut is_refusing = false;
    loop {
        let outcome = probe(store).await;
        readiness.set(outcome.is_ok());
        match outcome {
            Ok(()) if std::mem::take(&mut is_refusing) => info!("Redis accepts writes again"),
            Ok(()) => {}
            Err(error) if is_refusing => debug!(%error, "Redis still does not accept writes"),
            Err(error) => {
                is_refusing = true;
                warn!(%error, "Redis does not accept writes; registrations fail, existing routes stay in service");
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Sends a write without effect: deletes the address "", which never exists. A replica, a master without its replicas or its
/// disk, a loading server, and a user without rights refuse it like any other write.
async fn probe(store: &Store) -> Result<(), StoreError> {
    let mut command = redis::cmd("HDEL");
    command.arg(ADDRESSES_KEY).arg("");
    store.commit(&Reading::<_, u64>::new(command)).await.map(drop)
}
