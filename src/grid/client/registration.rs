//! One service at one proxy: logged until the proxy knows, logged again, and taken back at the end.

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

/// Between two tries to register, at first and at last.
const REGISTER_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Between two looks at who listens, at first and at last; and when that has taken long.
const POLL_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
const SLOW_POLL: Duration = Duration::from_secs(5);
/// After so long without a server there is a line in the log, where it ends nothing.
const WARN_AFTER: Duration = Duration::from_secs(120);
/// An answer is waited for so long before `unregister` is sent after its command, lest it overtakes.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// An old listener answers an unknown command within this time.
const UNKNOWN_REPLY_WITHIN: Duration = Duration::from_millis(500);

/// Asks for the end, and says by when it should be over.
pub type StopSignal = watch::Receiver<Option<Instant>>;

/// What is registered.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Where the command listens.
    pub port: u16,
    /// Whether requests are redirected to the tool's own host.
    pub canonical: bool,
    /// Whose server has to listen there.
    pub uid: u32,
}

/// How long the command may take until it listens.
#[derive(Clone, Copy, Debug)]
pub struct ListenWait {
    /// `None`: for ever.
    pub timeout: Option<Duration>,
    /// Whether it is over when another user's server is seen on the port.
    pub fail_on_foreign_server: bool,
}

/// A service and a proxy.
#[derive(Debug)]
pub struct ProxyRegistration {
    proxy: Proxy,
    service: Service,
    support: ProtocolSupport,
    /// What the proxy may route the tool to; the last is the one that it should.
    urls: Vec<Backend>,
    record: Arc<JobRecord>,
}

/// Why a service will not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The end was asked for.
    #[error("the end was asked for")]
    Stopped,
    /// No server within the time for it.
    #[error("{0} within {1:?}")]
    NotListening(NotServing, Duration),
    /// The command cannot have the port.
    #[error("{0}")]
    PortTaken(NotServing),
    /// The proxy will never agree.
    #[error("{error} while registering with {proxy}")]
    Rejected {
        /// Which one.
        proxy: Proxy,
        /// What it says.
        error: ExchangeError,
    },
}

impl ProxyRegistration {
    /// Nothing is logged yet. What may be registered is written down in `record`.
    pub fn new(proxy: Proxy, service: Service, record: Arc<JobRecord>) -> Self {
        Self { proxy, service, support: ProtocolSupport::default(), urls: Vec::new(), record }
    }

    /// With whom.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Whether the proxy may know of the service.
    pub fn may_be_registered(&self) -> bool {
        !self.urls.is_empty()
    }

    /// What is known of the proxy.
    pub fn support(&self) -> ProtocolSupport {
        self.support
    }

    /// Waits until a server of ours listens where the proxy would send requests.
    ///
    /// # Errors
    /// What was seen last, when the wait is over.
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
            // Each of these lasts until somebody does something about it; that nothing listens does not, for a while.
            if (is_late || !matches!(not_serving, NotServing::Nothing(_))) && logged.as_ref() != Some(&not_serving) {
                warn!("{not_serving}: not registered with {} yet", self.proxy);
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

    /// Registers, again and again until it works.
    ///
    /// # Errors
    /// The end was asked for, or the proxy will never agree.
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
                        warn!("{now} while registering with {}, trying again", self.proxy);
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

    /// Once, and returns the URL that is registered.
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
            // What it may have known before is replaced.
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

    /// Has the proxy route the tool to us if it does not route it anywhere. Once.
    ///
    /// # Errors
    /// It does not know how, or has another route; or what stands in the way.
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

    /// Unregisters what the proxy may know of, again and again until it works, the time is over, or after `tries`.
    ///
    /// # Errors
    /// The last of what went wrong; then something may still be registered.
    pub async fn unregister(&mut self, by: Instant, tries: usize) -> Result<(), ExchangeError> {
        while let Some(url) = self.urls.last() {
            unregister(&self.proxy, Some(url), &mut self.support, by, tries).await?;
            self.urls.pop();
            self.record.set(&self.proxy, &self.urls);
        }
        Ok(())
    }
}

/// Waits for an answer; once the end is asked for, only a little longer.
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

/// Waits until the end is asked for.
pub async fn stop_requested(stop: &mut StopSignal) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}
