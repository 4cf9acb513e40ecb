//! Lists and watches Services, with retries. After each failure it lists all Services again: a broken connection may have lost
//! events.

use std::time::Duration;

use futures_util::{AsyncReadExt, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectList, Status};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::desired::{ObservedService, ServiceId, id_of};
use super::service::NamespaceTemplate;
use crate::backoff::Backoff;
use crate::clock;
use crate::kube_client::{check_token, describe};

/// The first and the longest delay between a failure and the next attempt.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// After watching this long, the delay starts over.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// A watch that ends sooner without an event counts as failed. An upper limit: see [`WatchSettings::min_watch`].
const MIN_WATCH: Duration = Duration::from_secs(1);
/// The longest delay that a response may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// The time between two lists while watches succeed.
const RELIST_INTERVAL: Duration = Duration::from_secs(1800);
/// The server ends a watch at its timeout; a connection idle for this much longer is dead.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// The first and the largest number of Services in a page of a list.
const PAGE: (u32, u32) = (32, 500);
/// A longer page, in bytes, is abandoned for one of a fourth of the Services. Tenants can make Services as large as the API
/// server allows, and 500 of these would exceed the memory.
const MAX_PAGE_LEN: u64 = 4 << 20;
/// The largest single Service, in bytes of JSON; a larger one fails the list.
const MAX_SERVICE_LEN: u64 = 64 << 20;
/// Events that wait for the reconciler.
const QUEUE_LEN: usize = 1000;

/// A change of the cluster, or of the connection to it.
#[derive(Debug)]
pub enum ClusterEvent {
    /// A list begins. An earlier incomplete list is void.
    ListBegins,
    /// A Service of the list.
    Listed(ServiceId, ObservedService),
    /// The list is complete.
    ListEnds,
    /// A Service was created or changed.
    Applied(ServiceId, ObservedService),
    /// A Service was deleted, or is no longer selected.
    Deleted(ServiceId),
    /// The list or watch failed; another attempt follows.
    Failed(WatchError),
}

/// Why a list or watch failed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The client cannot be created, for example because the token file is unreadable.
    #[error("{} while creating an API client", describe(&**.0))]
    Client(#[source] Box<kube::Error>),
    /// A list request failed.
    #[error("{} while listing Services", describe(&**.0))]
    List(#[source] Box<kube::Error>),
    /// A watch request failed, or its connection broke.
    #[error("{} while watching Services", describe(&**.0))]
    Watch(#[source] Box<kube::Error>),
    /// The server sent an error event in a watch.
    #[error("{} ({}) while watching Services", .0.message, .0.code)]
    Status(Box<Status>),
    /// A list or an event lacks the version to continue from.
    #[error("no resourceVersion in the API server's response")]
    NoVersion,
    /// A watch lasted less than [`WatchSettings::min_watch`].
    #[error("watch ended immediately, without an event")]
    EndedAtOnce,
}

/// The cluster and the Services to watch.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// The API server's address and the credentials.
    pub config: kube::Config,
    /// A Service is routed if any of these selects it.
    pub label_selectors: Vec<String>,
    /// The duration of one watch.
    pub timeout: Duration,
    /// The namespaces of each tool.
    pub templates: Vec<NamespaceTemplate>,
}

/// Lists and watches by each selector, until the receiver is dropped. Events carry the selector's index.
pub fn watch_all(settings: &WatchSettings) -> mpsc::Receiver<(usize, ClusterEvent)> {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    for (number, selector) in settings.label_selectors.iter().enumerate() {
        let watch = Watch {
            settings: settings.clone(),
            selector: selector.clone(),
            number,
            sender: sender.clone(),
            healthy_since: None,
        };
        tokio::spawn(watch.run());
    }
    receiver
}

struct Watch {
    settings: WatchSettings,
    selector: String,
    number: usize,
    sender: mpsc::Sender<(usize, ClusterEvent)>,
    /// When the last list was completed, unless something failed since.
    healthy_since: Option<Instant>,
}

/// Why a list and the watches after it ended.
enum Stopped {
    Failed(WatchError),
    ReceiverClosed,
}

impl From<WatchError> for Stopped {
    fn from(error: WatchError) -> Self {
        Self::Failed(error)
    }
}

impl Watch {
    async fn run(mut self) {
        let mut pause = Backoff::between(RETRY.0, RETRY.1);
        loop {
            let error = match self.list_and_watch().await {
                // Time for another list.
                Ok(()) => continue,
                Err(Stopped::ReceiverClosed) => return,
                Err(Stopped::Failed(error)) => error,
            };
            // A list that succeeds proves little while each watch after it fails.
            if self.healthy_since.take().is_some_and(|since| since.elapsed() > STABLE_AFTER) {
                pause.reset();
            }
            let asked = error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER);
            if self.send(ClusterEvent::Failed(error)).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(pause.next_delay().max(asked)) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    async fn send(&self, event: ClusterEvent) -> Result<(), Stopped> {
        self.sender.send((self.number, event)).await.map_err(|_| Stopped::ReceiverClosed)
    }

    /// Lists, then watches until the next list is due. Each call creates a client, which rereads the token file.
    async fn list_and_watch(&mut self) -> Result<(), Stopped> {
        let relist_at = Instant::now() + RELIST_INTERVAL;
        let client = self.settings.client().map_err(|error| WatchError::Client(Box::new(error)))?;
        let mut version = self.list(&client).await?;
        let services = Api::all_with(client, &ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&()));
        self.healthy_since = Some(Instant::now());
        let mut pause = Backoff::between(RETRY.0, RETRY.1);
        loop {
            let begun = Instant::now();
            let has_events = match timeout_at(relist_at, self.watch(&services, &mut version)).await {
                Ok(watched) => watched?,
                Err(_) => return Ok(()),
            };
            if begun.elapsed() >= self.settings.min_watch() {
                pause.reset();
            } else if has_events {
                sleep(pause.next_delay()).await;
            } else {
                return Err(WatchError::EndedAtOnce.into());
            }
        }
    }

    /// Sends all pages of a list. Returns the version to watch from.
    async fn list(&self, client: &Client) -> Result<String, Stopped> {
        self.send(ClusterEvent::ListBegins).await?;
        let failed = |error| WatchError::List(Box::new(error));
        let mut params = ListParams::default().labels(&self.selector);
        let mut limit = PAGE.0;
        loop {
            params.limit = Some(limit);
            let Some((page, len)) = read_page(client, &params, limit == 1).await.map_err(failed)? else {
                limit = (limit / 4).max(1);
                continue;
            };
            if len < MAX_PAGE_LEN / 4 {
                limit = (limit * 2).min(PAGE.1);
            }
            for service in page.items {
                self.send(ClusterEvent::Listed(id_of(&service), self.read(&service, None))).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                let version = version.ok_or(WatchError::NoVersion)?;
                self.send(ClusterEvent::ListEnds).await?;
                return Ok(version);
            }
        }
    }

    /// Reduces a Service to its route, so that waiting events take little memory.
    fn read(&self, service: &DynamicObject, changed_at: Option<u64>) -> ObservedService {
        ObservedService::read(service, &self.settings.templates, changed_at)
    }

    /// Runs one watch to its end. Returns whether it had events.
    async fn watch(&self, services: &Api<DynamicObject>, version: &mut String) -> Result<bool, Stopped> {
        let seconds = u32::try_from(self.settings.timeout.as_secs().max(1)).unwrap_or(u32::MAX);
        let params = WatchParams::default().labels(&self.selector).timeout(seconds);
        let failed = |error| WatchError::Watch(Box::new(error));
        let mut events = Box::pin(services.watch(&params, version).await.map_err(failed)?);
        let mut has_events = false;
        // An idle connection counts as a watch that reached its timeout.
        while let Ok(next) = timeout(self.settings.timeout + IDLE_GRACE, events.try_next()).await {
            let Some(event) = next.map_err(failed)? else { break };
            has_events = true;
            match event {
                WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                    *version = version_of(&service)?;
                    let observed = self.read(&service, Some(clock::unix_seconds()));
                    self.send(ClusterEvent::Applied(id_of(&service), observed)).await?;
                }
                WatchEvent::Deleted(service) => {
                    *version = version_of(&service)?;
                    self.send(ClusterEvent::Deleted(id_of(&service))).await?;
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(WatchError::Status(status.boxed()).into()),
            }
        }
        Ok(has_events)
    }
}

fn version_of(service: &DynamicObject) -> Result<String, WatchError> {
    service.metadata.resource_version.clone().filter(|version| !version.is_empty()).ok_or(WatchError::NoVersion)
}

/// One page of a list, and its length in bytes; `None` if the page exceeds [`MAX_PAGE_LEN`] and has more than one Service.
async fn read_page(
    client: &Client,
    params: &ListParams,
    is_single: bool,
) -> kube::Result<Option<(ObjectList<DynamicObject>, u64)>> {
    let request = kube::core::Request::new("/api/v1/services").list(params).map_err(kube::Error::BuildRequest)?;
    let max_len = if is_single { MAX_SERVICE_LEN } else { MAX_PAGE_LEN };
    let mut response = client.request_stream(request).await?.take(max_len + 1);
    let mut text = Vec::new();
    response.read_to_end(&mut text).await.map_err(kube::Error::ReadEvents)?;
    if response.limit() == 0 && !is_single {
        return Ok(None);
    }
    let page = serde_json::from_slice(&text).map_err(kube::Error::SerdeError)?;
    Ok(Some((page, text.len() as u64)))
}

impl WatchSettings {
    /// A watch that ends sooner without an event counts as failed.
    fn min_watch(&self) -> Duration {
        MIN_WATCH.min(self.timeout / 2)
    }

    /// A client with a read timeout that covers one watch.
    ///
    /// # Errors
    /// The token file or a certificate is unreadable.
    pub fn client(&self) -> kube::Result<Client> {
        let mut config = self.config.clone();
        config.read_timeout = Some(self.timeout + IDLE_GRACE);
        config.reset_reader_on_write = true;
        // The built-in retry waits as long as a response asks for, without a limit.
        config.default_retry = false;
        // The crate rereads the file, but keeps a trailing newline as a part of the token.
        let file = config.auth_info.token_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        if let Some(token) = file.as_deref().filter(|text| text.trim_ascii_end() != *text) {
            config.auth_info.token = Some(token.trim_ascii_end().to_owned().into());
        }
        check_token(&config.auth_info)?;
        Client::try_from(config)
    }
}

impl WatchError {
    /// The delay that a busy API server asks for.
    fn retry_after(&self) -> Option<Duration> {
        let status = match self {
            Self::List(error) | Self::Watch(error) => match &**error {
                kube::Error::Api(status) => status,
                _ => return None,
            },
            Self::Status(status) => status,
            Self::Client(_) | Self::NoVersion | Self::EndedAtOnce => return None,
        };
        Some(Duration::from_secs(status.details.as_ref()?.retry_after_seconds.into()))
    }
}
