//! Keeping a registration: the proxy is told again, so that a route that it has lost is back soon.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::dialect::Dialect;
use super::exchange::ExchangeError;
use super::registration::{Refusal, Registration, Stop, stopped};
use crate::backoff::Backoff;

/// How often a proxy is told again, unless it is said: at most.
pub const DEFAULT_INTERVAL: &str = "60s";
/// A proxy that does not know the command is asked so much more seldom: it logs each one.
const OLD_PROXY: u32 = 10;

/// Renews until the end is asked for, each time after half of `interval` to all of it.
///
/// # Errors
/// The proxy will never agree, or the end was asked for.
pub async fn keep(registration: &mut Registration, interval: Duration, stop: &mut Stop) -> Result<(), Refusal> {
    // Drawn anew each time: thousands of tools that began together do not come together.
    let mut pause = Backoff::between(interval, interval);
    let mut told = String::new();
    loop {
        let factor = if registration.dialect() == Dialect::Old { OLD_PROXY } else { 1 };
        tokio::select! {
            () = sleep_until(Instant::now() + pause.next_delay() * factor) => {}
            () = stopped(stop) => return Err(Refusal::Stopped),
        }
        let outcome = registration.renew(stop).await;
        if stop.borrow().is_some() {
            return Err(Refusal::Stopped);
        }
        let proxy = registration.proxy();
        let Err(error) = outcome else {
            if !told.is_empty() {
                info!("registration with {proxy} is renewed again");
                told.clear();
            }
            continue;
        };
        let (is_expected, now) = match &error {
            ExchangeError::Moved(own) => {
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
        if now == told {
            debug!("{now} while renewing the registration with {proxy}");
        } else if is_expected {
            info!("{proxy} {now}");
        } else {
            warn!("{now} while renewing the registration with {proxy}, trying again");
        }
        told = now;
    }
}
