//! Whether Redis takes writes: checked again and again, also while no client asks for anything.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::status::Readiness;
use super::store::{Reading, Store, StoreError};
use crate::registry::ADDRESSES_KEY;

/// Between two checks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Sets `readiness` by whether Redis would take a write now; one line in the log for each change. Never ends.
pub async fn probe_writes(store: &Store, readiness: &Readiness) {
    let mut is_refusing = false;
    loop {
        let outcome = check(store).await;
        readiness.set(outcome.is_ok());
        match outcome {
            Ok(()) if std::mem::take(&mut is_refusing) => info!("Redis accepts writes again"),
            Ok(()) => {}
            Err(error) if is_refusing => debug!(%error, "Redis still refuses writes"),
            Err(error) => {
                is_refusing = true;
                warn!(%error, "Redis refuses writes; registrations fail, existing routes stay in service");
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Asks for a change that changes nothing: no address is empty. A replica, a master that has lost its replicas or its disk, one
/// that loads, and one whose user has no rights refuse it as they refuse any other write.
async fn check(store: &Store) -> Result<(), StoreError> {
    let mut command = redis::cmd("HDEL");
    command.arg(ADDRESSES_KEY).arg("");
    store.commit(&Reading::<_, u64>::new(command)).await.map(drop)
}
