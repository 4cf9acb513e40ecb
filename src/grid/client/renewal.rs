//! Renews a registration at intervals, so that a route that a proxy has lost returns soon.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::exchange::ExchangeError;
use super::protocol_support::ProtocolSupport;
use super::registration::{ProxyRegistration, RegistrationError, StopSignal, stop_requested};
use crate::backoff::Backoff;

/// Default of `--renew-interval`.
pub const DEFAULT_INTERVAL: &str = "60s";
/// A proxy that does not know `renew` is asked this much less often: it logs each attempt.
const LEGACY_FACTOR: u32 = 10;

/// Renews until the stop signal, after a random pause between half of `interval` and all of it.
///
/// # Errors
/// [`RegistrationError::Stopped`], or [`RegistrationError::Rejected`].
pub async fn renew_until_stopped(
    registration: &mut ProxyRegistration,
    interval: Duration,
    stop: &mut StopSignal,
) -> Result<(), RegistrationError> {
    // A new random pause each time, so that thousands of tools that started together spread out.
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
                info!("renewal with {proxy} works again");
                logged.clear();
            }
            continue;
        };
        let (is_expected, now) = match &error {
            ExchangeError::AddressChanged(own) => {
                warn!("this host's address changed to {own}; registering with {proxy} again");
                registration.register(stop).await?;
                continue;
            }
            ExchangeError::UnknownCommand => {
                (true, "does not support renew; a route that it loses returns when the service is started again".into())
            }
            error if error.is_fail() => (
                true,
                "refused to renew; it has a newer route of this tool, or cannot verify or store this one now".into(),
            ),
            error => (false, error.to_string()),
        };
        if now == logged {
            debug!("{now} while renewing with {proxy}");
        } else if is_expected {
            info!("{proxy} {now}");
        } else {
            warn!("{now} while renewing with {proxy}; retrying");
        }
        logged = now;
    }
}
