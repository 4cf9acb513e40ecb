//! Listing and watching Services for as long as it takes. After any failure everything is listed anew: what a broken
//! connection lost is not known.

use std::time::Duration;

use futures_util::{AsyncReadExt, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectList, Status};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::desired::{Seen, ServiceId, id_of};
use super::error::shown;
use super::service::NamespaceTemplate;
use crate::backoff::Backoff;
use crate::clock;

/// Between a failure and the next try, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Watching that went well for so long was no chance.
const HEALTHY: Duration = Duration::from_secs(10);
/// A watch that ends sooner, without a word, was none. At most: see [`WatchSettings::shortest_watch`].
const AT_ONCE: Duration = Duration::from_secs(1);
/// Longer than this nobody is waited for, whatever an answer asks.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Everything is listed this often, whatever was watched.
const LIST_AGAIN: Duration = Duration::from_secs(1800);
/// A watch is ended by the server in its time; after so much more the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(5);
/// Services of a list that are asked for at once, at first and at most.
const PAGE: (u32, u32) = (32, 500);
/// A longer answer, in bytes, is not read to its end: a fourth of the Services is asked for. Tenants make Services as large as
/// the API server takes them, 500 of which would be more than the memory there is.
const MAX_PAGE_LEN: u64 = 4 << 20;
/// One Service alone may be larger, as JSON; then there is no list.
const MAX_SERVICE_LEN: u64 = 64 << 20;
/// News that wait to be taken in.
const WAITING: usize = 1000;

/// Something that happened in the cluster, or to the connection.
#[derive(Debug)]
pub enum News {
    /// A list begins: what was found of an earlier one that did not end counts no more.
    ListBegins,
    /// One of the list.
    Listed(ServiceId, Seen),
    /// The list is complete.
    ListEnds,
    /// A Service came, or changed.
    Applied(ServiceId, Seen),
    /// A Service went, or is selected no more.
    Deleted(ServiceId),
    /// It failed, and will be tried again.
    Failed(WatchError),
}

/// Why there is no list or no watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No client, as when the token's file cannot be read.
    #[error("{} while making a client", shown(&**.0))]
    Client(#[source] Box<kube::Error>),
    /// The API server's answer, or none.
    #[error("{} while listing Services", shown(&**.0))]
    List(#[source] Box<kube::Error>),
    /// The same.
    #[error("{} while watching Services", shown(&**.0))]
    Watch(#[source] Box<kube::Error>),
    /// Told in the middle of a watch.
    #[error("{} ({}) while watching Services", .0.message, .0.code)]
    Told(Box<Status>),
    /// A list or an event without one: there is nothing to go on from.
    #[error("no resourceVersion in the API server's answer")]
    NoVersion,
    /// Nothing was watched.
    #[error("a watch ended at once, without an event")]
    EndedAtOnce,
}

/// How to list and watch.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// How to reach the API server, and as whom.
    pub config: kube::Config,
    /// Which Services: those that any of these selects.
    pub label_selectors: Vec<String>,
    /// For one watch, which then is renewed.
    pub timeout: Duration,
    /// Which namespaces are whose.
    pub templates: Vec<NamespaceTemplate>,
}

/// Lists and watches by each selector, for as long as somebody receives; the number says by which.
pub fn watch_all(settings: &WatchSettings) -> mpsc::Receiver<(usize, News)> {
    let (sender, receiver) = mpsc::channel(WAITING);
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
    sender: mpsc::Sender<(usize, News)>,
    /// Since the last list was complete, if nothing has failed.
    healthy_since: Option<Instant>,
}

/// Why a list and the watches after it are over.
enum Over {
    Failed(WatchError),
    /// Nobody receives.
    NotWanted,
}

impl From<WatchError> for Over {
    fn from(error: WatchError) -> Self {
        Self::Failed(error)
    }
}

impl Watch {
    async fn run(mut self) {
        let mut pause = Backoff::between(AGAIN.0, AGAIN.1);
        loop {
            let error = match self.list_and_watch().await {
                // It is time to list again.
                Ok(()) => continue,
                Err(Over::NotWanted) => return,
                Err(Over::Failed(error)) => error,
            };
            // A list that succeeds says little when the watch after it fails again and again.
            if self.healthy_since.take().is_some_and(|since| since.elapsed() > HEALTHY) {
                pause.reset();
            }
            let asked = error.retry_after().unwrap_or_default().min(LONGEST_WAIT);
            if self.tell(News::Failed(error)).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(pause.next_delay().max(asked)) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    async fn tell(&self, news: News) -> Result<(), Over> {
        self.sender.send((self.number, news)).await.map_err(|_| Over::NotWanted)
    }

    /// Lists, and watches until it is time to list again. A new client reads the token's file again.
    async fn list_and_watch(&mut self) -> Result<(), Over> {
        let list_again_at = Instant::now() + LIST_AGAIN;
        let client = self.settings.client().map_err(|error| WatchError::Client(Box::new(error)))?;
        let mut version = self.list(&client).await?;
        let services = Api::all_with(client, &ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&()));
        self.healthy_since = Some(Instant::now());
        let mut pause = Backoff::between(AGAIN.0, AGAIN.1);
        loop {
            let begun = Instant::now();
            let has_events = match timeout_at(list_again_at, self.watch(&services, &mut version)).await {
                Ok(watched) => watched?,
                Err(_) => return Ok(()),
            };
            if begun.elapsed() >= self.settings.shortest_watch() {
                pause.reset();
            } else if has_events {
                sleep(pause.next_delay()).await;
            } else {
                return Err(WatchError::EndedAtOnce.into());
            }
        }
    }

    /// All pages of a list; the version to watch from.
    async fn list(&self, client: &Client) -> Result<String, Over> {
        self.tell(News::ListBegins).await?;
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
                self.tell(News::Listed(id_of(&service), self.read(&service, None))).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                let version = version.ok_or(WatchError::NoVersion)?;
                self.tell(News::ListEnds).await?;
                return Ok(version);
            }
        }
    }

    /// What a Service means is all that is kept of it while others wait to be taken in.
    fn read(&self, service: &DynamicObject, changed_at: Option<u64>) -> Seen {
        Seen::read(service, &self.settings.templates, changed_at)
    }

    /// One watch, to its end; whether anything came.
    async fn watch(&self, services: &Api<DynamicObject>, version: &mut String) -> Result<bool, Over> {
        let seconds = u32::try_from(self.settings.timeout.as_secs().max(1)).unwrap_or(u32::MAX);
        let params = WatchParams::default().labels(&self.selector).timeout(seconds);
        let failed = |error| WatchError::Watch(Box::new(error));
        let mut events = Box::pin(services.watch(&params, version).await.map_err(failed)?);
        let mut has_events = false;
        // A silent connection ends like a watch whose time is over.
        while let Ok(next) = timeout(self.settings.timeout + SILENCE, events.try_next()).await {
            let Some(event) = next.map_err(failed)? else { break };
            has_events = true;
            match event {
                WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                    *version = version_of(&service)?;
                    let seen = self.read(&service, Some(clock::unix_seconds()));
                    self.tell(News::Applied(id_of(&service), seen)).await?;
                }
                WatchEvent::Deleted(service) => {
                    *version = version_of(&service)?;
                    self.tell(News::Deleted(id_of(&service))).await?;
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(WatchError::Told(status.boxed()).into()),
            }
        }
        Ok(has_events)
    }
}

fn version_of(service: &DynamicObject) -> Result<String, WatchError> {
    service.metadata.resource_version.clone().filter(|version| !version.is_empty()).ok_or(WatchError::NoVersion)
}

/// One page of a list, and how long it was as text; `None` if it is too long, which a single Service is not.
async fn read_page(
    client: &Client,
    params: &ListParams,
    is_single: bool,
) -> kube::Result<Option<(ObjectList<DynamicObject>, u64)>> {
    let request = kube::core::Request::new("/api/v1/services").list(params).map_err(kube::Error::BuildRequest)?;
    let most = if is_single { MAX_SERVICE_LEN } else { MAX_PAGE_LEN };
    let mut answer = client.request_stream(request).await?.take(most + 1);
    let mut text = Vec::new();
    answer.read_to_end(&mut text).await.map_err(kube::Error::ReadEvents)?;
    if answer.limit() == 0 && !is_single {
        return Ok(None);
    }
    let page = serde_json::from_slice(&text).map_err(kube::Error::SerdeError)?;
    Ok(Some((page, text.len() as u64)))
}

impl WatchSettings {
    /// A watch that ends sooner without an event has failed.
    fn shortest_watch(&self) -> Duration {
        AT_ONCE.min(self.timeout / 2)
    }

    /// A client that waits for no answer longer than for a watch.
    ///
    /// # Errors
    /// The token's file, or a certificate, cannot be read.
    pub fn client(&self) -> kube::Result<Client> {
        let mut config = self.config.clone();
        config.read_timeout = Some(self.timeout + SILENCE);
        config.reset_reader_on_write = true;
        // It would wait as long as an answer asks.
        config.default_retry = false;
        // The crate reads the file again and again, but takes a line end for a part of the token.
        let file = config.auth_info.token_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        if let Some(token) = file.as_deref().filter(|text| text.trim_ascii_end() != *text) {
            config.auth_info.token = Some(token.trim_ascii_end().to_owned().into());
        }
        Client::try_from(config)
    }
}

impl WatchError {
    /// What the API server asks for when it is busy.
    fn retry_after(&self) -> Option<Duration> {
        let status = match self {
            Self::List(error) | Self::Watch(error) => match &**error {
                kube::Error::Api(status) => status,
                _ => return None,
            },
            Self::Told(status) => status,
            Self::Client(_) | Self::NoVersion | Self::EndedAtOnce => return None,
        };
        Some(Duration::from_secs(status.details.as_ref()?.retry_after_seconds.into()))
    }
}
