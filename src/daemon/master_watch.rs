//! Learns from the Sentinels that another server has become the master, while the former one may still answer.

use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::redis_client::{Address, Sentinels, master_by_votes};

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(400);
/// Time of one check, for all Sentinels together.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until the Sentinels name another master than `current`, and returns it.
///
/// A failover takes a majority of all Sentinels, so a few of them change nothing: one that is cut off from the others still names
/// the former master. Sentinels that do not answer change nothing either.
pub(super) async fn master_moved(sentinels: &Sentinels, current: &Address) -> Address {
    loop {
        sleep(CHECK_INTERVAL).await;
        let asked = sentinels.clone();
        // Ends in time by itself; a canceled one at most delays nobody.
        let answer = spawn_blocking(move || master_by_votes(&asked, Instant::now() + CHECK_TIMEOUT)).await;
        let Ok(Ok((named, votes))) = answer else { continue };
        if named != *current && votes * 2 >= sentinels.addresses.len() {
            return named;
        }
    }
}
