//! Learns from the Sentinels that another server has become the master, while the former one may still answer.

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::redis_client::{Address, MASTER_CHECK_INTERVAL, Sentinels, moved_master};

/// Waits until the Sentinels name another master than `current`, and returns it.
pub(super) async fn master_moved(sentinels: &Sentinels, current: &Address) -> Address {
    loop {
        sleep(MASTER_CHECK_INTERVAL).await;
        let (asked, known) = (sentinels.clone(), current.clone());
        // A check that nobody waits for any more ends within its timeout.
        let moved = spawn_blocking(move || moved_master(&asked, &known, &|| false)).await;
        if let Ok(Some(master)) = moved {
            return master;
        }
    }
}
