//! Requests to the API server: each ends in time, reads a bounded answer, and fails with one line that says what to do.

use std::time::Duration;

use futures_util::{AsyncBufRead, TryStreamExt};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::{HeaderName, LOCATION, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, PropagationPolicy};
use kube::client::{Body, Connection};
use kube::core::Status;
use kube::{Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::api_error::ApiError;
use crate::kube_client::{check_token, describe};

/// For the repetitions while no connection is there: an API server that restarts.
const OUTAGE: Duration = Duration::from_secs(6);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
/// For a request with its repetitions; also the longest `Retry-After` that is waited for.
const REQUEST: Duration = Duration::from_secs(20);
/// Before the first repetition; each further one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The largest answer, in bytes. Objects have at most 1.5 MiB.
const MAX_ANSWER: usize = 8 << 20;
/// Objects in one answer of a list: evicted Pods may pile up.
const PAGE: u32 = 250;
/// Answers that are read of one list; more would take minutes.
const MAX_PAGES: u32 = 40;
/// The largest body of an error, in bytes.
const MAX_ERROR: usize = 64 << 10;

/// An object in a namespace.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Serialize + Clone
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Serialize + Clone
{
}

/// Whether a request that may have been executed is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Always,
    OnlyIfRefused,
}

/// A client of one API server.
#[derive(Clone)]
pub struct Api {
    client: Client,
    server: String,
}

/// A part of a list; other fields are ignored.
#[derive(serde::Deserialize)]
struct Page<K> {
    items: Vec<K>,
    metadata: ListMeta,
}

impl Api {
    /// A client with these credentials.
    ///
    /// # Errors
    /// A certificate, a key or the token is invalid.
    pub fn new(config: Config) -> Result<Self, ApiError> {
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = check_token(&config.auth_info)
            .and_then(|()| Client::try_from(config))
            .map_err(|error| ApiError::Credentials { server: server.clone(), error: describe(&error) })?;
        Ok(Self { client, server })
    }

    /// An object; `None` if there is none.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
        let doing = format!("reading {} {name:?}", K::kind(&()));
        let request = kube::core::Request::new(K::url_path(&(), Some(namespace)));
        let request = request.get(name, &kube::api::GetParams::default());
        match self.read(&doing, request, Repeat::Always).await {
            Err(error) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// The objects that a selector selects, in pages of [`PAGE`].
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn list<K: Object>(&self, namespace: &str, selector: &str) -> Result<Vec<K>, ApiError> {
        let doing = format!("listing {}", K::plural(&()));
        let request = kube::core::Request::new(K::url_path(&(), Some(namespace)));
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut objects = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut page: Page<K> = self.read(&doing, request.list(&params), Repeat::Always).await?;
            objects.append(&mut page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                break;
            }
        }
        Ok(objects)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As for [`get`](Self::get). After [`ApiError::is_ambiguous`] the object may be there.
    pub async fn create<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiError> {
        let doing = format!("creating {} {:?}", K::kind(&()), name_of(object.meta()));
        let body = serde_json::to_vec(object).map_err(|error| self.unsendable(&doing, &error))?;
        let request = kube::core::Request::new(K::url_path(&(), Some(namespace)));
        self.read(&doing, request.create(&PostParams::default(), body), Repeat::OnlyIfRefused).await
    }

    /// Replaces an object. If it has a `resourceVersion`, only while it is that version.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn replace<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiError> {
        let name = name_of(object.meta());
        let doing = format!("replacing {} {name:?}", K::kind(&()));
        let body = serde_json::to_vec(object).map_err(|error| self.unsendable(&doing, &error))?;
        let request = kube::core::Request::new(K::url_path(&(), Some(namespace)));
        self.read(&doing, request.replace(name, &PostParams::default(), body), Repeat::OnlyIfRefused).await
    }

    /// Deletes this object, not another one of its name. It may be gone already.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn delete<K: Object>(&self, namespace: &str, meta: &ObjectMeta) -> Result<(), ApiError> {
        let name = name_of(meta);
        let doing = format!("deleting {} {name:?}", K::kind(&()));
        let preconditions = kube::api::Preconditions { uid: meta.uid.clone(), resource_version: None };
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: meta.uid.is_some().then_some(preconditions),
            ..DeleteParams::default()
        };
        let request = kube::core::Request::new(K::url_path(&(), Some(namespace)));
        // The answer is the object or a status.
        match self.read::<serde_json::Value>(&doing, request.delete(name, &params), Repeat::Always).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }

    /// A stream of text. Its head arrives in time; what follows may take any time.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn stream(&self, doing: &str, request: BuiltRequest) -> Result<impl AsyncBufRead + use<>, ApiError> {
        let request = request.map_err(|error| self.unsendable(doing, &error))?;
        let attempt = async {
            let response = self.send(doing, request).await?;
            self.accept(doing, response).await
        };
        let response = timeout(ATTEMPT, attempt).await.map_err(|_| self.timed_out(doing, ATTEMPT))??;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other).into_async_read())
    }

    /// A WebSocket connection.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn connect(&self, doing: &str, request: BuiltRequest) -> Result<Connection, ApiError> {
        let request = request.map_err(|error| self.unsendable(doing, &error))?;
        let connected = timeout(ATTEMPT, self.client.connect(request)).await;
        connected.map_err(|_| self.timed_out(doing, ATTEMPT))?.map_err(|error| self.failed(doing, error))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        doing: &str,
        request: BuiltRequest,
        repeat: Repeat,
    ) -> Result<T, ApiError> {
        let request = request.map_err(|error| self.unsendable(doing, &error))?;
        let begun = Instant::now();
        let deadline = begun + REQUEST;
        let mut pause = FIRST_PAUSE;
        loop {
            let until = deadline.min(Instant::now() + ATTEMPT);
            let attempt = timeout_at(until, self.attempt(doing, request.clone())).await;
            let error = match attempt.unwrap_or_else(|_| Err(self.timed_out(doing, ATTEMPT))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = error.retry_after().unwrap_or(pause).max(pause);
            let may_repeat = error.is_refused_for_now() || (repeat == Repeat::Always && error.is_ambiguous());
            let deadline = if matches!(error, ApiError::Unreachable { .. }) { begun + OUTAGE } else { deadline };
            if !may_repeat || wait >= deadline.saturating_duration_since(Instant::now()) {
                return Err(error);
            }
            sleep(wait).await;
            pause *= 2;
        }
    }

    async fn attempt<T: DeserializeOwned>(&self, doing: &str, request: Request<Vec<u8>>) -> Result<T, ApiError> {
        let response = self.send(doing, request).await?;
        let response = self.accept(doing, response).await?;
        let body = self.body(doing, response, MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::Garbage {
            server: self.server.clone(),
            doing: doing.to_owned(),
            error: error.to_string(),
        })
    }

    async fn send(&self, doing: &str, request: Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        self.client.send(request.map(Body::from)).await.map_err(|error| self.failed(doing, error))
    }

    /// The response, if it is a success.
    async fn accept(&self, doing: &str, response: Response<Body>) -> Result<Response<Body>, ApiError> {
        let code = response.status();
        if code.is_success() {
            return Ok(response);
        }
        if code.is_redirection() {
            let location = header(&response, LOCATION).unwrap_or_default();
            return Err(ApiError::Redirect { server: self.server.clone(), doing: doing.to_owned(), location });
        }
        let seconds = header(&response, RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        let body = self.body(doing, response, MAX_ERROR).await?;
        let status = serde_json::from_slice::<Status>(&body).ok().filter(|status| status.code != 0);
        Err(self.refused(doing, code, status, retry_after))
    }

    async fn body(&self, doing: &str, response: Response<Body>, limit: usize) -> Result<Vec<u8>, ApiError> {
        match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(ApiError::TooLarge { server: self.server.clone(), doing: doing.to_owned(), limit })
            }
            Err(error) => Err(self.unreachable(doing, describe(&*error))),
        }
    }

    fn failed(&self, doing: &str, error: kube::Error) -> ApiError {
        match error {
            kube::Error::Api(status) => {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                self.refused(doing, code, Some(*status), None)
            }
            error @ kube::Error::UpgradeConnection(_) => {
                ApiError::Garbage { server: self.server.clone(), doing: doing.to_owned(), error: describe(&error) }
            }
            error => self.unreachable(doing, describe(&error)),
        }
    }

    fn refused(
        &self,
        doing: &str,
        code: StatusCode,
        status: Option<Status>,
        retry_after: Option<Duration>,
    ) -> ApiError {
        let seconds = status.as_ref().and_then(|status| status.details.as_ref()?.retry_after_seconds.into());
        let asked = seconds.filter(|&seconds: &u32| seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
        ApiError::Refused {
            server: self.server.clone(),
            doing: doing.to_owned(),
            code: code.as_u16(),
            is_from_api: status.is_some(),
            reason: status.as_ref().map(|status| status.reason.clone()).unwrap_or_default(),
            message: status.map_or_else(|| code.to_string(), |status| one_line(&status.message)),
            retry_after: retry_after.or(asked),
        }
    }

    fn unreachable(&self, doing: &str, error: String) -> ApiError {
        ApiError::Unreachable { server: self.server.clone(), doing: doing.to_owned(), error }
    }

    fn timed_out(&self, doing: &str, time: Duration) -> ApiError {
        ApiError::Timeout { server: self.server.clone(), doing: doing.to_owned(), seconds: time.as_secs() }
    }

    fn unsendable(&self, doing: &str, error: &(dyn std::error::Error + 'static)) -> ApiError {
        ApiError::Unsendable { doing: doing.to_owned(), error: describe(error) }
    }
}

fn header(response: &Response<Body>, name: HeaderName) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(one_line)
}

/// A request that the kube crate has built.
pub type BuiltRequest = Result<Request<Vec<u8>>, kube::core::request::Error>;

/// The name; empty without one.
pub fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The text on one line, of a length that a terminal takes.
pub fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 1000;
    let words: Vec<_> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}
