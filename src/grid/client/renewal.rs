//! Keeping a registration: the proxy is logged again, so that a route that it has lost is back soon.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::exchange::ExchangeError;
use super::protocol_support::ProtocolSupport;
use super::registration::{ProxyRegistration, RegistrationError, StopSignal, stop_requested};
use crate::backoff::Backoff;

/// How often a proxy is logged again, unless it is said: at most.
pub const DEFAULT_INTERVAL: &str = "60s";
/// A proxy that does not know the command is asked so much more seldom: it logs each one.
const LEGACY_FACTOR: u32 = 10;

/// Renews until the end is asked for, each time after half of `interval` to all of it.
///
/// # Errors
/// The proxy will never agree, or the end was asked for.
pub async fn renew_until_stopped(
    registration: &mut ProxyRegistration,
    interval: Duration,
    stop: &mut StopSignal,
) -> Result<(), RegistrationError> {
    // Drawn anew each time: thousands of tools that began together do not come together.
    let mut pause = Backoff::between(interval, interval);
    let mut logged = String::new();
    loop {
        let factor = if registration.support() == ProtocolSupport::Legacy { LEGACY_FACTOR } else { 1 };
        tokio::select! {
            () = sleep_until(Instant::now() + pause.next_delay() * factor) => {}
            () = stop_requested(stop) => return Err(RegistrationError::Stopped),
        }
        let outcome = registration.renew(stop).await;
        if stop.borrow().is_some() {
            return Err(RegistrationError::Stopped);
        }
        let proxy = registration.proxy();
        let Err(error) = outcome else {
            if !logged.is_empty() {
                info!("registration with {proxy} is renewed again");
                logged.clear();
            }
            continue;
        };
        let (is_expected, now) = match &error {
            ExchangeError::AddressChanged(own) => {
                warn!("this host's address is {own} now: registering with {proxy} again");
                registration.register(stop).await?;
                continue;
            }
            ExchangeError::UnknownCommand => {
                (true, "does not know renew: a route that it loses is back when the service is started again".into())
            }
            error if error.is_fail() => (true, "has a newer route of this tool, or cannot renew now".into()),
            error => (false, error.to_string()),
        };
        if now == logged {
            debug!("{now} while renewing the registration with {proxy}");
        } else if is_expected {
            info!("{proxy} {now}");
        } else {
            warn!("{now} while renewing the registration with {proxy}, trying again");
        }
        logged = now;
    }
}
