//! Listing and watching Services for as long as it takes. After any failure everything is listed anew: what a broken
//! connection lost is not known.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until};

use super::error::shown;
use crate::backoff::Backoff;

/// Between a failure and the next try, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Watching that went well for so long was no chance.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longer than this nobody is waited for, whatever an answer asks.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Everything is listed this often, whatever was watched.
const LIST_AGAIN: Duration = Duration::from_secs(1800);
/// A watch is ended by the server in its time; after so much more the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(5);

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<DynamicObject>>> + Send>>;

/// Something that happened in the cluster, or to the connection.
#[derive(Debug)]
pub enum News {
    /// A list begins: what was found of an earlier one that did not end counts no more.
    ListBegins,
    /// One of the list.
    Listed(DynamicObject),
    /// The list is complete.
    ListEnds,
    /// A Service came, or changed.
    Applied(DynamicObject),
    /// A Service went.
    Deleted(DynamicObject),
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
    #[error("{}", shown(.0))]
    Watch(#[from] watcher::Error),
}

/// How to list and watch.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// How to reach the API server, and as whom.
    pub config: kube::Config,
    /// Which Services.
    pub label_selector: String,
    /// For one watch, which then is renewed.
    pub timeout: Duration,
}

/// Lists and watches, one piece of news at a time.
pub struct Watch {
    settings: WatchSettings,
    events: Option<Events>,
    pause: Backoff,
    again_at: Option<Instant>,
    /// Since the last list was complete, if nothing has failed.
    healthy_since: Option<Instant>,
    list_again_at: Instant,
}

impl Watch {
    /// Begins with the first call of [`Self::next`].
    pub fn new(settings: WatchSettings) -> Self {
        let pause = Backoff::between(AGAIN.0, AGAIN.1);
        let list_again_at = Instant::now() + LIST_AGAIN;
        Self { settings, events: None, pause, again_at: None, healthy_since: None, list_again_at }
    }

    /// Waits for the next piece of news; may be given up and begun again without losing any.
    pub async fn next(&mut self) -> News {
        if let Some(at) = self.again_at {
            sleep_until(at).await;
            self.again_at = None;
        }
        let events = match &mut self.events {
            Some(events) => events,
            None => match self.settings.begin() {
                Ok(events) => {
                    self.list_again_at = Instant::now() + LIST_AGAIN;
                    self.events.insert(events)
                }
                Err(error) => return self.failed(error),
            },
        };
        let next = tokio::select! {
            next = events.next() => next,
            () = sleep_until(self.list_again_at) => None,
        };
        match next {
            Some(Ok(Event::Init)) => News::ListBegins,
            Some(Ok(Event::InitApply(service))) => News::Listed(service),
            Some(Ok(Event::InitDone)) => {
                self.healthy_since = Some(Instant::now());
                News::ListEnds
            }
            Some(Ok(Event::Apply(service))) => News::Applied(service),
            Some(Ok(Event::Delete(service))) => News::Deleted(service),
            Some(Err(error)) => self.failed(error.into()),
            // Watchers do not end: it is time to list again.
            None => {
                self.events = None;
                News::ListBegins
            }
        }
    }

    /// A new client reads the token's file again, and a new watcher begins with a list.
    fn failed(&mut self, error: WatchError) -> News {
        self.events = None;
        // A list that succeeds says little when the watch after it fails again and again.
        if self.healthy_since.take().is_some_and(|since| since.elapsed() > HEALTHY) {
            self.pause.reset();
        }
        let asked = error.retry_after().unwrap_or_default().min(LONGEST_WAIT);
        self.again_at = Some(Instant::now() + self.pause.next_delay().max(asked));
        News::Failed(error)
    }
}

impl WatchSettings {
    fn begin(&self) -> Result<Events, WatchError> {
        let client = self.client().map_err(|error| WatchError::Client(Box::new(error)))?;
        let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        let seconds = u32::try_from(self.timeout.as_secs().max(1)).unwrap_or(u32::MAX);
        let config = watcher::Config::default().labels(&self.label_selector).timeout(seconds);
        let events = watcher(Api::<DynamicObject>::all_with(client, &kind), config);
        // Kept for each of ten thousand otherwise.
        let lean = |event: Event<DynamicObject>| {
            event.modify(|service| {
                service.metadata.managed_fields = None;
                service.metadata.annotations = None;
            })
        };
        Ok(Box::pin(events.map(move |event| event.map(lean))))
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
        let (Self::Client(_) | Self::Watch(watcher::Error::NoResourceVersion)) = self else {
            let Self::Watch(error) = self else { return None };
            let status = match error {
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status))
                | watcher::Error::WatchFailed(kube::Error::Api(status))
                | watcher::Error::WatchError(status) => status,
                _ => return None,
            };
            let seconds = status.details.as_ref()?.retry_after_seconds;
            return Some(Duration::from_secs(seconds.into()));
        };
        None
    }
}
