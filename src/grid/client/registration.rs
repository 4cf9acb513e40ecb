//! The registration of one service with one proxy: registers, renews, unregisters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::active_proxy::Proxy;
use super::exchange::{ALL_PATHS, Connection, EXCHANGE_TIMEOUT, ExchangeError, SourceAddress, own_addresses};
use super::job_record::JobRecord;
use super::listening_socket::{NotServing, check_listening, check_reachable};
use super::protocol_support::ProtocolSupport;
use super::unregistration::unregister;
use crate::backoff::Backoff;
use crate::grid::protocol::Command;
use crate::route::{Backend, Host, Scheme};

/// First and longest pause between tries to register.
const REGISTER_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// First and longest pause between checks of the port, and the pause added after [`WARN_AFTER`].
const POLL_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
const SLOW_POLL: Duration = Duration::from_secs(5);
/// The log warns after so long without a server.
const WARN_AFTER: Duration = Duration::from_secs(120);
/// Time to await a reply before sending `unregister`, which could overtake the command otherwise.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// An old listener replies to an unknown command within this time.
const UNKNOWN_REPLY_WITHIN: Duration = Duration::from_millis(500);

/// Requests the end; the value is the deadline for unregistering.
pub type StopSignal = watch::Receiver<Option<Instant>>;

/// A service to register.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// TCP port of the command's server.
    pub port: u16,
    /// Whether clients are redirected to the tool's own host.
    pub canonical: bool,
    /// The user who must own the server.
    pub uid: u32,
}

/// How to wait for the command's server.
#[derive(Clone, Copy, Debug)]
pub struct ListenWait {
    /// `None` waits forever.
    pub timeout: Option<Duration>,
    /// Whether another user's server on the port ends the wait.
    pub fail_on_foreign_server: bool,
}

/// One service at one proxy.
#[derive(Debug)]
pub struct ProxyRegistration {
    proxy: Proxy,
    service: Service,
    support: ProtocolSupport,
    /// URLs that may be registered with the proxy; the last is the wanted one.
    urls: Vec<Backend>,
    record: Arc<JobRecord>,
}

/// Why a service is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The stop signal came first.
    #[error("stopped")]
    Stopped,
    /// No server of the user listened in time.
    #[error("no usable server after {1:?}: {0}")]
    NotListening(NotServing, Duration),
    /// Another user's server has the port.
    #[error("{0}")]
    PortTaken(NotServing),
    /// The proxy's refusal is final.
    #[error("{error} while registering with {proxy}")]
    Rejected {
        /// The proxy.
        proxy: Proxy,
        /// Its reply.
        error: ExchangeError,
    },
}

impl ProxyRegistration {
    /// Sends nothing yet. `record` keeps the URLs that may be registered.
    pub fn new(proxy: Proxy, service: Service, record: Arc<JobRecord>) -> Self {
        Self { proxy, service, support: ProtocolSupport::default(), urls: Vec::new(), record }
    }

    /// The proxy.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Whether the proxy may have a registration of the service.
    pub fn may_be_registered(&self) -> bool {
        !self.urls.is_empty()
    }

    /// Which commands the proxy supports.
    pub fn support(&self) -> ProtocolSupport {
        self.support
    }

    /// Waits until a server of the user listens where the proxy would send requests.
    ///
    /// # Errors
    /// The last result of the check, when the wait is over.
    pub async fn wait_until_listening(&self, wait: ListenWait) -> Result<(), RegistrationError> {
        let start = Instant::now();
        let own = own_addresses(&self.proxy).await;
        let mut pause = Backoff::between(POLL_BACKOFF.0, POLL_BACKOFF.1);
        let mut logged = None;
        loop {
            let Err(not_serving) = self.check(&own).await else { return Ok(()) };
            if wait.fail_on_foreign_server && matches!(not_serving, NotServing::OtherUser { .. }) {
                return Err(RegistrationError::PortTaken(not_serving));
            }
            let again = Instant::now() + pause.next_delay();
            match wait.timeout {
                Some(timeout) if again >= start + timeout => {
                    return Err(RegistrationError::NotListening(not_serving, timeout));
                }
                _ => {}
            }
            let is_late = Instant::now() >= start + WARN_AFTER;
            // A server that is starting needs no warning; everything else lasts until someone fixes it.
            if (is_late || !matches!(not_serving, NotServing::Nothing(_))) && logged.as_ref() != Some(&not_serving) {
                warn!("{not_serving}; not registered with {} yet", self.proxy);
                logged = Some(not_serving);
            }
            sleep_until(if is_late { again + SLOW_POLL } else { again }).await;
        }
    }

    async fn check(&self, own: &[IpAddr]) -> Result<(), NotServing> {
        let Service { port, uid, .. } = self.service;
        let mut outcome = check_listening(port, uid, own);
        if outcome.is_ok() {
            for &own in own {
                outcome = check_reachable(port, uid, own).await;
                if outcome.is_ok() {
                    break;
                }
            }
        }
        outcome
    }

    /// Registers, and retries until that succeeds.
    ///
    /// # Errors
    /// [`RegistrationError::Stopped`], or [`RegistrationError::Rejected`].
    pub async fn register(&mut self, stop: &mut StopSignal) -> Result<(), RegistrationError> {
        let mut pause = Backoff::between(REGISTER_BACKOFF.0, REGISTER_BACKOFF.1);
        let mut logged = String::new();
        loop {
            match self.try_register(stop).await {
                Ok(url) => {
                    info!("registered {url} with {}", self.proxy);
                    return Ok(());
                }
                Err(_) if stop.borrow().is_some() => return Err(RegistrationError::Stopped),
                Err(error) if error.is_final() => {
                    return Err(RegistrationError::Rejected { proxy: self.proxy.clone(), error });
                }
                Err(error) => {
                    let now = error.to_string();
                    if now == logged {
                        debug!("{now} while registering with {}", self.proxy);
                    } else {
                        warn!("{now} while registering with {}; retrying", self.proxy);
                        logged = now;
                    }
                }
            }
            tokio::select! {
                () = sleep_until(Instant::now() + pause.next_delay()) => {}
                () = stop_requested(stop) => return Err(RegistrationError::Stopped),
            }
        }
    }

    /// Tries once, and returns the registered URL.
    async fn try_register(&mut self, stop: &mut StopSignal) -> Result<Backend, ExchangeError> {
        let Service { port, canonical, uid } = self.service;
        let connection = self.open(SourceAddress::Served { port, uid }, stop).await?;
        let host = match connection.own_address() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        };
        let backend = Backend { scheme: Scheme::Http, host, port };
        let before = self.urls.clone();
        self.urls.retain(|url| *url != backend);
        self.urls.push(backend.clone());
        self.record.set(&self.proxy, &self.urls);
        let url = backend.to_string();
        let answer = connection.send(Command::Register { pattern: ALL_PATHS, url: &url, canonical });
        match until_stopped(answer, stop).await {
            // The new URL has replaced all earlier ones.
            Ok(()) => self.urls = vec![backend.clone()],
            Err(error) => {
                if !error.may_have_succeeded() {
                    self.urls = before;
                    self.record.set(&self.proxy, &self.urls);
                }
                return Err(error);
            }
        }
        self.record.set(&self.proxy, &self.urls);
        Ok(backend)
    }

    /// Renews once: the proxy restores the route if the tool has none.
    ///
    /// # Errors
    /// The proxy does not know the command or has another route, or the exchange failed.
    pub async fn renew(&mut self, stop: &mut StopSignal) -> Result<(), ExchangeError> {
        let Service { port, canonical, uid } = self.service;
        let Some(url) = self.urls.last().cloned() else { return Ok(()) };
        let source = match url.host {
            Host::V4(ip) => SourceAddress::StillServed { address: ip.into(), port, uid },
            Host::V6(ip) => SourceAddress::StillServed { address: ip.into(), port, uid },
            Host::Name(_) => SourceAddress::Served { port, uid },
        };
        let url = url.to_string();
        let command = Command::Renew { pattern: ALL_PATHS, url: &url, canonical };
        let connection = self.open(source, stop).await?;
        let outcome = until_stopped(self.support.send(connection, command, UNKNOWN_REPLY_WITHIN), stop).await;
        if outcome.is_ok() || self.support != ProtocolSupport::Impatient {
            return outcome;
        }
        let connection = self.open(source, stop).await?;
        until_stopped(self.support.send(connection, command, UNKNOWN_REPLY_WITHIN), stop).await
    }

    async fn open(&self, source: SourceAddress, stop: &mut StopSignal) -> Result<Connection, ExchangeError> {
        tokio::select! {
            connection = Connection::open(&self.proxy, Instant::now() + EXCHANGE_TIMEOUT, source) => connection,
            () = stop_requested(stop) => Err(ExchangeError::Timeout),
        }
    }

    /// Unregisters all URLs that may be registered. Retries until the deadline, `tries` times at most for each.
    ///
    /// # Errors
    /// The last failure; a URL may still be registered then.
    pub async fn unregister(&mut self, by: Instant, tries: usize) -> Result<(), ExchangeError> {
        while let Some(url) = self.urls.last() {
            unregister(&self.proxy, Some(url), &mut self.support, by, tries).await?;
            self.urls.pop();
            self.record.set(&self.proxy, &self.urls);
        }
        Ok(())
    }
}

/// Awaits a reply; after the stop signal only for [`LAST_REPLY_TIMEOUT`].
async fn until_stopped(
    answer: impl Future<Output = Result<(), ExchangeError>>,
    stop: &mut StopSignal,
) -> Result<(), ExchangeError> {
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        () = stop_requested(stop) => timeout(LAST_REPLY_TIMEOUT, answer).await.unwrap_or(Err(ExchangeError::Timeout)),
    }
}

/// Waits for the stop signal.
pub async fn stop_requested(stop: &mut StopSignal) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // The sender is gone, so no signal can come.
        std::future::pending::<()>().await;
    }
}
