//! Unregistering: one URL where the proxy can, whatever the host has registered where it cannot.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::active_proxy::Proxy;
use super::exchange::{ALL_PATHS, Connection, ExchangeError, SourceAddress};
use super::protocol_support::ProtocolSupport;
use crate::backoff::Backoff;
use crate::grid::protocol::Command;
use crate::route::Backend;

/// Between two tries: there is little time for it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));
/// An old listener answers an unknown command within this time, or within three times that at the next try. Until it is over
/// a server that has ended may still be routed to.
const UNKNOWN_REPLY_WITHIN: Duration = Duration::from_millis(100);

/// Unregisters, again and again until it works, the time is over, or after `tries`. Without a URL: whatever the proxy has of
/// this host and user.
///
/// With a URL, `unregister`, which would take another job's route too, is sent only to a listener that has shown at this try
/// that it does not know `unregisterUrl`.
///
/// # Errors
/// The last of what went wrong; then something may still be registered.
pub async fn unregister(
    proxy: &Proxy,
    url: Option<&Backend>,
    support: &mut ProtocolSupport,
    by: Instant,
    tries: usize,
) -> Result<(), ExchangeError> {
    let what = url.map_or_else(String::new, |url| format!("{url} "));
    let mut pause = Backoff::between(BACKOFF.0, BACKOFF.1);
    let mut name_pause = UNKNOWN_REPLY_WITHIN;
    let mut left = tries;
    let mut earlier = None;
    loop {
        left = left.saturating_sub(1);
        // A pause that is as long as the time that is left would end without an answer.
        let time_left = by.saturating_duration_since(Instant::now());
        let outcome = try_once(proxy, url, support, by, name_pause.min(time_left / 2)).await;
        name_pause *= 3;
        let again = Instant::now() + pause.next_delay();
        let is_last = left == 0 || again >= by;
        let error = match outcome {
            Ok(()) => {
                info!("unregistered {what}from {proxy}");
                return Ok(());
            }
            // What went wrong earlier says more than that the time is over.
            Err(ExchangeError::Timeout) if is_last => earlier.take().unwrap_or(ExchangeError::Timeout),
            Err(error) => error,
        };
        if error.is_final() || is_last {
            warn!("{error} while unregistering {what}from {proxy}");
            return Err(error);
        }
        debug!("{error} while unregistering {what}from {proxy}");
        earlier = Some(error);
        sleep_until(again).await;
    }
}

async fn try_once(
    proxy: &Proxy,
    url: Option<&Backend>,
    support: &mut ProtocolSupport,
    by: Instant,
    name_pause: Duration,
) -> Result<(), ExchangeError> {
    if let Some(url) = url {
        let connection = Connection::open(proxy, by, SourceAddress::Any).await?;
        let command = Command::UnregisterUrl { pattern: ALL_PATHS, url: &url.to_string() };
        // Time for the answer is left.
        let name_pause = name_pause.min(by.saturating_duration_since(Instant::now()) / 2);
        match support.send(connection, command, name_pause).await {
            Err(ExchangeError::UnknownCommand) => {}
            Err(error) if error.is_fail() => {
                support.doubt();
                return Err(error);
            }
            outcome => return outcome,
        }
    }
    Connection::open(proxy, by, SourceAddress::Any).await?.send(Command::Unregister { pattern: ALL_PATHS }).await
}
