//! The HTTP API: handles one request at a time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use hyper::{Method, Request};
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::api_error::ApiError;
use super::audit::{Action, Author};
use super::change::{self, Changed};
use super::database::Database;
use super::mapping::{Mapping, backends_of, find_project, mappings_of};
use super::mapping_policy::MappingPolicy;
use super::metrics::Metrics;
use super::replicator::Progress;
use super::request::{Resource, accepts_problem, bearer, read_mapping};
use super::resolver::{Resolved, Resolver, TooManyLookups};
use super::token::authorize;
use crate::daemon::{HttpResponse, Permit, TEXT_PLAIN, response_with};
use crate::route::Domain;
use rusqlite::Transaction;

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Bytes read of a larger body, so that its sender can read the response.
const MAX_DISCARDED_BODY: usize = 1024 * 1024;
/// Time to receive a body.
const BODY_TIMEOUT_SECONDS: u64 = 10;
/// Requests that read the database at once, and requests that change it at once; others wait.
const MAX_CONCURRENT: usize = 32;
/// Time that a request waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a response waits for its change to reach Redis.
const REPLICATION_WAIT: Duration = Duration::from_secs(1);
/// Response header: whether Redis had the change when the response was sent.
const REPLICATED: HeaderName = HeaderName::from_static("urlproxy-replicated");
const OPEN_API: &str = include_str!("openapi.json");

/// A client's connection at the limiter.
pub(super) type Connection = Permit<IpAddr>;

/// State that all requests share.
#[derive(Debug)]
pub(super) struct Api {
    database: Database,
    rules: Arc<AccessRules>,
    progress: watch::Receiver<Progress>,
    changed: Arc<Notify>,
    metrics: Metrics,
    resolver: Resolver,
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

/// The operator's rules for requests.
#[derive(Clone, Debug)]
pub(super) struct AccessRules {
    pub policy: MappingPolicy,
    pub require_tokens: bool,
    pub read_only: bool,
}

/// A requested operation on a project. An invalid body is reported only after authorization.
enum Operation {
    List,
    Show { domain: String },
    Put { wanted: Result<Mapping, ApiError> },
    Replace { domain: String, wanted: Result<Mapping, ApiError> },
    Delete { domain: String },
}

impl Operation {
    fn is_change(&self) -> bool {
        !matches!(self, Self::List | Self::Show { .. })
    }

    /// The backends in the request.
    fn backends(&self) -> &[String] {
        match self {
            Self::Put { wanted: Ok(wanted) } | Self::Replace { wanted: Ok(wanted), .. } => &wanted.backends,
            _ => &[],
        }
    }
}

/// Marks a connection busy while its client waits for the server.
struct BusyGuard<'c>(&'c Connection);

impl<'c> BusyGuard<'c> {
    fn start(connection: &'c Connection) -> Self {
        connection.set_busy();
        Self(connection)
    }
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.0.set_idle();
    }
}

enum Outcome {
    Json(String),
    Changed { text: Option<&'static str>, changed: Changed },
}

impl Api {
    pub(super) fn new(
        database: Database,
        rules: AccessRules,
        progress: watch::Receiver<Progress>,
        changed: Arc<Notify>,
        metrics: Metrics,
    ) -> Self {
        Self {
            database,
            rules: Arc::new(rules),
            progress,
            changed,
            metrics,
            resolver: Resolver::new(),
            reads: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            changes: Arc::new(Semaphore::new(MAX_CONCURRENT)),
        }
    }

    /// Responds to a request from `peer` on `connection`.
    pub(super) async fn answer(
        &self,
        peer: IpAddr,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> HttpResponse {
        let (method, as_problem) = (request.method().clone(), accepts_problem(request.headers()));
        let response = match self.handle(peer, connection, request).await {
            Ok(response) => response,
            Err(error) => {
                let status = error.status().as_u16();
                match &error {
                    ApiError::Database(error) => warn!(%error, status, "request failed; nothing changed"),
                    ApiError::Sqlite(error) => {
                        warn!(%error, path = %self.database.path().display(), status, "request failed; nothing changed");
                    }
                    ApiError::NoSuchResource | ApiError::Method(_) => debug!(%peer, status, "request refused"),
                    _ => info!(%peer, %method, status, reason = error.detail(), "request refused"),
                }
                error.into_response(as_problem)
            }
        };
        self.metrics.count_request(&method, response.status().as_u16());
        response
    }

    async fn handle(
        &self,
        peer: IpAddr,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Result<HttpResponse, ApiError> {
        let (head, body) = request.into_parts();
        let body = read_body(body).await?;
        let resource = Resource::of(&head.uri)?;
        let (project, operation) = match (resource, head.method) {
            (Resource::OpenApi, Method::GET | Method::HEAD) => return Ok(with_body("application/json", OPEN_API)),
            (Resource::Mappings { project }, Method::GET | Method::HEAD) => (project, Operation::List),
            (Resource::Mappings { project }, Method::PUT) => (project, Operation::Put { wanted: read_mapping(&body) }),
            (Resource::Mapping { project, domain }, Method::GET | Method::HEAD) => {
                (project, Operation::Show { domain })
            }
            (Resource::Mapping { project, domain }, Method::POST) => {
                (project, Operation::Replace { domain, wanted: read_mapping(&body) })
            }
            (Resource::Mapping { project, domain }, Method::DELETE) => (project, Operation::Delete { domain }),
            (resource, _) => return Err(ApiError::Method(resource.methods())),
        };
        let token = bearer(&head.headers).map(str::to_owned);
        let resolved = self.resolve(&project, token.as_deref(), &operation).await?;
        // Before this, and while the response is sent, the server waits for the client and its DNS names.
        let _busy = BusyGuard::start(connection);
        // Changes wait for each other and for the disk; reads do not wait for changes.
        let permit = permit_from(if operation.is_change() { &self.changes } else { &self.reads }).await?;
        let rules = Arc::clone(&self.rules);
        let work = move |database: &Database| {
            // The work continues if its client disconnects, so the work owns the permit.
            let _permit = permit;
            execute(database, &rules, peer, &project, token.as_deref(), operation, &resolved)
        };
        let outcome = self.database.blocking(work).await?;
        match outcome {
            Outcome::Json(json) => Ok(with_body("application/json", json)),
            Outcome::Changed { text, changed } => {
                let is_replicated = self.wait_for_redis(changed.seq).await;
                let mut response = match text {
                    Some(text) => with_body(TEXT_PLAIN, text),
                    None => HttpResponse::default(),
                };
                let replicated = HeaderValue::from_static(if is_replicated { "yes" } else { "pending" });
                response.headers_mut().insert(REPLICATED, replicated);
                Ok(response)
            }
        }
    }

    /// Resolves the host names of the requested backends, after authorization. Other requests do not wait for the lookups.
    async fn resolve(&self, project: &str, token: Option<&str>, operation: &Operation) -> Result<Resolved, ApiError> {
        let names = self.rules.policy.names_of(operation.backends());
        // With more names than backends, plus one for Redis, the request is refused later anyway.
        if names.is_empty() || names.len() > self.rules.policy.max_backends + 1 || self.rules.read_only {
            return Ok(Resolved::new());
        }
        let permit = permit_from(&self.reads).await?;
        let (always, owner, token) = (self.rules.require_tokens, project.to_owned(), token.map(str::to_owned));
        let check_access = move |database: &Database| {
            let _permit = permit;
            database.read(|transaction| Ok(authorize(transaction, &owner, token.as_deref(), always)))?
        };
        self.database.blocking(check_access).await?;
        self.resolver.look_up(project, names).await.map_err(|TooManyLookups| ApiError::Busy)
    }

    /// Waits until Redis has the outbox up to `seq`, at most [`REPLICATION_WAIT`]; returns whether it has.
    async fn wait_for_redis(&self, seq: i64) -> bool {
        self.changed.notify_one();
        let mut progress = self.progress.clone();
        let decided =
            timeout(REPLICATION_WAIT, progress.wait_for(|progress| progress.seq >= seq || !progress.is_replicating));
        decided.await.is_ok_and(|progress| progress.is_ok_and(|progress| progress.seq >= seq))
    }
}

/// Waits for a permit, at most [`PERMIT_TIMEOUT`].
async fn permit_from(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = timeout(PERMIT_TIMEOUT, Arc::clone(permits).acquire_owned()).await;
    permit.ok().and_then(Result::ok).ok_or(ApiError::Busy)
}

fn execute(
    database: &Database,
    rules: &AccessRules,
    peer: IpAddr,
    project: &str,
    token: Option<&str>,
    operation: Operation,
    resolved: &Resolved,
) -> Result<Outcome, ApiError> {
    let check_access = |transaction: &Transaction<'_>| authorize(transaction, project, token, rules.require_tokens);
    let id = database.read(|transaction| Ok(check_access(transaction)))??;
    let who = id.map_or_else(|| peer.to_string(), |id| format!("token {id}"));
    let author = Author { who: &who, project, is_operator: false };
    let checked = |wanted: Mapping| Ok(rules.policy.check_resolved(&wanted.backends, resolved).map(|()| wanted)?);
    let (text, changed) = match operation {
        Operation::List => return list(database, project),
        Operation::Show { domain } => return show(database, project, &domain),
        operation if operation.is_change() && rules.read_only => return Err(ApiError::ReadOnly),
        Operation::Put { wanted } => {
            let wanted = checked(wanted?)?;
            let put =
                |transaction: &Transaction<'_>| change::put(transaction, &rules.policy, author, &wanted, Action::Put);
            (None, change_if(database, check_access, put)?)
        }
        Operation::Replace { domain, wanted } => {
            let (domain, wanted) = (canonical_domain(database, project, &domain)?, wanted.and_then(checked));
            let replace =
                |transaction: &Transaction<'_>| change::replace(transaction, &rules.policy, author, &domain, wanted);
            (Some("OK"), change_if(database, check_access, replace)?)
        }
        Operation::Delete { domain } => {
            let domain = canonical_domain(database, project, &domain)?;
            let delete = |transaction: &Transaction<'_>| change::delete(transaction, author, &domain);
            (Some("deleted"), change_if(database, check_access, delete)?)
        }
    };
    let (domain, to) = (&changed.domain, &changed.renamed_to);
    match changed.action {
        Some(action) => info!(project, action = action.as_str(), domain, to, who, "mapping changed"),
        None => debug!(project, domain, who, "mapping unchanged"),
    }
    Ok(Outcome::Changed { text, changed })
}

/// Changes the database if authorized. Checks again inside the transaction: a token may be revoked while its change waits.
fn change_if(
    database: &Database,
    check_access: impl Fn(&Transaction<'_>) -> Result<Option<i64>, ApiError>,
    change: impl FnOnce(&Transaction<'_>) -> Result<Changed, ApiError>,
) -> Result<Changed, ApiError> {
    database.write(|transaction| {
        check_access(transaction)?;
        change(transaction)
    })
}

#[derive(Serialize)]
struct Mappings<'a> {
    project: &'a str,
    routes: Vec<Mapping>,
}

fn json(value: &impl Serialize) -> Outcome {
    // Strings can always be written as JSON.
    Outcome::Json(serde_json::to_string(value).unwrap_or_default())
}

fn list(database: &Database, project: &str) -> Result<Outcome, ApiError> {
    let routes = database.read(|transaction| match find_project(transaction, project)? {
        Some(id) => mappings_of(transaction, id).map(Some),
        None => Ok(None),
    })?;
    let routes = routes.ok_or(ApiError::NoSuchProject)?;
    Ok(json(&Mappings { project, routes }))
}

fn show(database: &Database, project: &str, domain: &str) -> Result<Outcome, ApiError> {
    let domain = canonical_domain(database, project, domain)?;
    let backends = database.read(|transaction| {
        Ok(change::find_own_domain(transaction, project, &domain).and_then(|_| Ok(backends_of(transaction, &domain)?)))
    })??;
    Ok(json(&Mapping { domain, backends }))
}

/// The canonical form of a path's domain. An invalid domain is `NoSuchDomain`, or `NoSuchProject` if the project is unknown.
fn canonical_domain(database: &Database, project: &str, domain: &str) -> Result<String, ApiError> {
    match Domain::normalize(domain) {
        Ok(domain) => Ok(domain.as_str().to_owned()),
        Err(_) => {
            let found = database.read(|transaction| find_project(transaction, project))?;
            Err(found.map_or(ApiError::NoSuchProject, |_| ApiError::NoSuchDomain))
        }
    }
}

/// Reads a whole body within the timeout.
async fn read_body(body: Incoming) -> Result<Bytes, ApiError> {
    let mut body = body;
    let reading = async {
        let mut bytes = Vec::new();
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            // The sender has disconnected, or does not speak HTTP.
            let Ok(data) = frame.map_err(|_| ApiError::Json("the body is cut short".into()))?.into_data() else {
                continue;
            };
            total += data.len();
            if total > MAX_DISCARDED_BODY {
                break;
            } else if total <= MAX_BODY {
                bytes.extend_from_slice(&data);
            }
        }
        if total > MAX_BODY { Err(ApiError::BodyTooLarge(MAX_BODY)) } else { Ok(Bytes::from(bytes)) }
    };
    timeout(Duration::from_secs(BODY_TIMEOUT_SECONDS), reading)
        .await
        .unwrap_or(Err(ApiError::BodyTooSlow(BODY_TIMEOUT_SECONDS)))
}

fn with_body(kind: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = response_with(kind, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
