//! Unregisters from one proxy: one URL if the proxy supports that, else the service that this host has registered.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::active_proxy::Proxy;
use super::exchange::{ALL_PATHS, Connection, ExchangeError, SourceAddress};
use super::protocol_support::ProtocolSupport;
use crate::backoff::Backoff;
use crate::grid::protocol::Command;
use crate::route::Backend;

/// First and longest pause between tries; there is little time for them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));
/// An old listener replies to an unknown command within this time, or three times that at the next try. Short, since the route
/// to a server that has ended stays meanwhile.
const UNKNOWN_REPLY_WITHIN: Duration = Duration::from_millis(100);

/// Unregisters a URL; without one, the service that this user has registered from this host. Retries until the deadline, `tries`
/// times at most.
///
/// `unregister` could remove another job's route. With a URL it goes only to a listener that has just shown that it does not
/// know `unregisterUrl`.
///
/// # Errors
/// The last failure; a URL may still be registered then.
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
        // The pause must leave time for a reply.
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
            // An earlier failure says more than a final timeout.
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
        // Leaves time for the reply.
        let name_pause = name_pause.min(by.saturating_duration_since(Instant::now()) / 2);
        match support.send(connection, command, name_pause).await {
            Err(ExchangeError::UnknownCommand) => {}
            Err(error) if error.is_fail() => {
                support.reset();
                return Err(error);
            }
            outcome => return outcome,
        }
    }
    Connection::open(proxy, by, SourceAddress::Any).await?.send(Command::Unregister { pattern: ALL_PATHS }).await
}
