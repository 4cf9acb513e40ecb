//! One service at one proxy: told until the proxy knows, and taken back at the end.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::active_proxy::Proxy;
use super::exchange::{Connection, EXCHANGE, ExchangeError, own_addresses};
use super::socket::{Unserved, check_served};
use crate::backoff::Backoff;
use crate::grid::protocol::Command;
use crate::route::{Backend, Host, Scheme};

/// A tool's service has all of its paths.
pub const EVERYTHING: &str = ".*";
/// Between two tries to register, at first and at last.
const REGISTER_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Between two tries to unregister: there is little time for it.
const UNREGISTER_AGAIN: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));
/// Between two looks at who listens.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// An answer to `register` is waited for so long before `unregister` is sent after it, lest it overtakes.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Asks for the end, and says by when it should be over.
pub type Stop = watch::Receiver<Option<Instant>>;

/// What is registered.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Where the command listens.
    pub port: u16,
    /// Whether requests are redirected to the tool's own host.
    pub canonical: bool,
    /// Whose server has to listen there first; `None` when the command is started only after.
    pub server_of: Option<u32>,
}

/// A service and a proxy.
#[derive(Debug)]
pub struct Registration {
    proxy: Proxy,
    service: Service,
    may_be_known: bool,
}

/// Why a service will not be registered.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The end was asked for.
    #[error("the end was asked for")]
    Stopped,
    /// No server within the time for it.
    #[error("{0} within {1:?}")]
    NeverServed(Unserved, Duration),
    /// The proxy will never agree.
    #[error("{error} while registering with {proxy}")]
    Final {
        /// Which one.
        proxy: Proxy,
        /// What it says.
        error: ExchangeError,
    },
}

impl Registration {
    /// Nothing is told yet.
    pub fn new(proxy: Proxy, service: Service) -> Self {
        Self { proxy, service, may_be_known: false }
    }

    /// What `portreleaser` knows: something may be registered, by whomever.
    pub fn inherited(proxy: Proxy) -> Self {
        Self { proxy, service: Service { port: 0, canonical: false, server_of: None }, may_be_known: true }
    }

    /// Whether the proxy may know of the service.
    pub fn may_be_known(&self) -> bool {
        self.may_be_known
    }

    /// Waits until a server of ours listens where the proxy would send requests.
    ///
    /// # Errors
    /// What was seen last, after `patience`.
    pub async fn served(&self, uid: u32, patience: Duration) -> Result<(), Refusal> {
        let deadline = Instant::now() + patience;
        let port = self.service.port;
        let own = own_addresses(&self.proxy).await;
        let mut pause = Backoff::between(LOOK_AGAIN.0, LOOK_AGAIN.1);
        loop {
            let Err(unserved) = check_served(port, uid, &own) else { return Ok(()) };
            let again = Instant::now() + pause.next_delay();
            if again >= deadline {
                return Err(Refusal::NeverServed(unserved, patience));
            }
            sleep_until(again).await;
        }
    }

    /// Registers, again and again until it works.
    ///
    /// # Errors
    /// The end was asked for, or the proxy will never agree.
    pub async fn register(&mut self, stop: &mut Stop) -> Result<(), Refusal> {
        let mut pause = Backoff::between(REGISTER_AGAIN.0, REGISTER_AGAIN.1);
        let mut told = String::new();
        loop {
            match self.try_register(stop).await {
                Ok(url) => {
                    info!("registered {url} with {}", self.proxy);
                    return Ok(());
                }
                Err(_) if stop.borrow().is_some() => return Err(Refusal::Stopped),
                Err(error) if error.is_final() => return Err(Refusal::Final { proxy: self.proxy.clone(), error }),
                Err(error) => {
                    let now = error.to_string();
                    if now == told {
                        debug!("{now} while registering with {}", self.proxy);
                    } else {
                        warn!("{now} while registering with {}, trying again", self.proxy);
                        told = now;
                    }
                }
            }
            tokio::select! {
                () = sleep_until(Instant::now() + pause.next_delay()) => {}
                () = stopped(stop) => return Err(Refusal::Stopped),
            }
        }
    }

    /// Once, and returns the URL that is registered.
    async fn try_register(&mut self, stop: &mut Stop) -> Result<Backend, ExchangeError> {
        let Service { port, canonical, server_of } = self.service;
        let check = |own: IpAddr| match server_of {
            Some(uid) => Ok(check_served(port, uid, &[own])?),
            None => Ok(()),
        };
        let connection = tokio::select! {
            connection = Connection::open(&self.proxy, Instant::now() + EXCHANGE, check) => connection?,
            () = stopped(stop) => return Err(ExchangeError::Timeout),
        };
        let host = match connection.own_address() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        };
        let backend = Backend { scheme: Scheme::Http, host, port };
        let url = backend.to_string();
        let was_known = std::mem::replace(&mut self.may_be_known, true);
        let answer = connection.ask(Command::Register { pattern: EVERYTHING, url: &url, canonical });
        tokio::pin!(answer);
        let answer = tokio::select! {
            answer = &mut answer => answer,
            () = stopped(stop) => timeout(LAST_ANSWER, answer).await.unwrap_or(Err(ExchangeError::Timeout)),
        };
        match answer {
            Ok(()) => Ok(backend),
            Err(error) => {
                self.may_be_known = was_known || error.leaves_doubt();
                Err(error)
            }
        }
    }

    /// Unregisters what the proxy may know of, again and again until it works, the time is over, or after `tries`.
    ///
    /// # Errors
    /// The last of what went wrong; then something may still be registered.
    pub async fn unregister(&mut self, by: Instant, tries: usize) -> Result<(), ExchangeError> {
        if !self.may_be_known {
            return Ok(());
        }
        let mut pause = Backoff::between(UNREGISTER_AGAIN.0, UNREGISTER_AGAIN.1);
        let mut left = tries;
        loop {
            left -= 1;
            let outcome = match Connection::open(&self.proxy, by, |_| Ok(())).await {
                Ok(connection) => connection.ask(Command::Unregister { pattern: EVERYTHING }).await,
                Err(error) => Err(error),
            };
            let again = Instant::now() + pause.next_delay();
            match outcome {
                Ok(()) => {
                    info!("unregistered from {}", self.proxy);
                    self.may_be_known = false;
                    return Ok(());
                }
                Err(error) if error.is_final() || left == 0 || again >= by => {
                    warn!("{error} while unregistering from {}", self.proxy);
                    return Err(error);
                }
                Err(error) => debug!("{error} while unregistering from {}", self.proxy),
            }
            sleep_until(again).await;
        }
    }
}

/// Waits until the end is asked for.
pub async fn stopped(stop: &mut Stop) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}
