//! The HTTP API: one request, one answer.

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

/// Largest body of a request, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// A larger one is read so far, so that its sender gets to read the answer.
const MAX_DISCARDED_BODY: usize = 1024 * 1024;
/// Longer than this a body may not take.
const BODY_TIMEOUT_SECONDS: u64 = 10;
/// More requests than these do not read the database at once, nor change it; others wait.
const MAX_CONCURRENT: usize = 32;
/// Longer than this they do not.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer waits for Redis to have the change.
const REPLICATION_WAIT: Duration = Duration::from_secs(1);
/// Tells whether Redis had the change when the answer was sent.
const REPLICATED: HeaderName = HeaderName::from_static("urlproxy-replicated");
const OPEN_API: &str = include_str!("openapi.json");

/// What a client's connection is known by.
pub(super) type Connection = Permit<IpAddr>;

/// What answers need.
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

/// What is allowed to whom.
#[derive(Clone, Debug)]
pub(super) struct AccessRules {
    pub policy: MappingPolicy,
    pub require_tokens: bool,
    pub read_only: bool,
}

/// What was asked of a project, and what may be wrong start it once it is known who asks.
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

    /// The backends that are asked for.
    fn backends(&self) -> &[String] {
        match self {
            Self::Put { wanted: Ok(wanted) } | Self::Replace { wanted: Ok(wanted), .. } => &wanted.backends,
            _ => &[],
        }
    }
}

/// A connection whose client waits for the server, and not the other way round.
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

    /// Answers a request that came from `peer` over `connection`.
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
                    ApiError::Database(error) => warn!(%error, status, "refused"),
                    ApiError::Sqlite(error) => warn!(%error, path = %self.database.path().display(), status, "refused"),
                    ApiError::NoSuchResource | ApiError::Method(_) => debug!(%peer, status, "refused"),
                    _ => info!(%peer, %method, status, why = error.detail(), "refused"),
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
        // Until here, and again while it takes the answer, it is the client and its names that the server waits for.
        let _busy = BusyGuard::start(connection);
        // Changes wait for each other and for the disk; who only reads does not wait for them.
        let permit = permit_from(if operation.is_change() { &self.changes } else { &self.reads }).await?;
        let rules = Arc::clone(&self.rules);
        let work = move |database: &Database| {
            // A client that goes away does not end the work, so the work has the permit.
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

    /// What the names of the backends mean that a change asks for, if who asks may ask; without names, nothing. Nobody else waits for
    /// it.
    async fn resolve(&self, project: &str, token: Option<&str>, operation: &Operation) -> Result<Resolved, ApiError> {
        let names = self.rules.policy.names_of(operation.backends());
        // With more of them than backends it is refused anyway; one more is the Redis's.
        if names.is_empty() || names.len() > self.rules.policy.max_backends + 1 || self.rules.read_only {
            return Ok(Resolved::new());
        }
        let permit = permit_from(&self.reads).await?;
        let (always, owner, token) = (self.rules.require_tokens, project.to_owned(), token.map(str::to_owned));
        let ask = move |database: &Database| {
            let _permit = permit;
            database.read(|transaction| Ok(authorize(transaction, &owner, token.as_deref(), always)))?
        };
        self.database.blocking(ask).await?;
        self.resolver.look_up(project, names).await.map_err(|TooManyLookups| ApiError::Busy)
    }

    /// Whether Redis has everything up to here, after a while.
    async fn wait_for_redis(&self, seq: i64) -> bool {
        self.changed.notify_one();
        let mut progress = self.progress.clone();
        let decided =
            timeout(REPLICATION_WAIT, progress.wait_for(|progress| progress.seq >= seq || !progress.is_replicating));
        decided.await.is_ok_and(|progress| progress.is_ok_and(|progress| progress.seq >= seq))
    }
}

/// A permit at the database, given back start the value.
async fn permit_from(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = timeout(PERMIT_TIMEOUT, Arc::clone(turns).acquire_owned()).await;
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
    let ask = |transaction: &Transaction<'_>| authorize(transaction, project, token, rules.require_tokens);
    let id = database.read(|transaction| Ok(ask(transaction)))??;
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
            (None, change_if(database, ask, put)?)
        }
        Operation::Replace { domain, wanted } => {
            let (domain, wanted) = (canonical_domain(database, project, &domain)?, wanted.and_then(checked));
            let replace =
                |transaction: &Transaction<'_>| change::replace(transaction, &rules.policy, author, &domain, wanted);
            (Some("OK"), change_if(database, ask, replace)?)
        }
        Operation::Delete { domain } => {
            let domain = canonical_domain(database, project, &domain)?;
            let delete = |transaction: &Transaction<'_>| change::delete(transaction, author, &domain);
            (Some("deleted"), change_if(database, ask, delete)?)
        }
    };
    let (domain, to) = (&changed.domain, &changed.renamed_to);
    match changed.action {
        Some(action) => info!(project, action = action.as_str(), domain, to, who, "changed"),
        None => debug!(project, domain, who, "unchanged"),
    }
    Ok(Outcome::Changed { text, changed })
}

/// Changes the database for who may: asked again where it counts, as a token may be revoked while a change waits for its permit.
fn change_if(
    database: &Database,
    ask: impl Fn(&Transaction<'_>) -> Result<Option<i64>, ApiError>,
    change: impl FnOnce(&Transaction<'_>) -> Result<Changed, ApiError>,
) -> Result<Changed, ApiError> {
    database.write(|transaction| {
        ask(transaction)?;
        change(transaction)
    })
}

#[derive(Serialize)]
struct Mappings<'a> {
    project: &'a str,
    routes: Vec<Mapping>,
}

fn json(value: &impl Serialize) -> Outcome {
    // Strings always are JSON.
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

/// A path's domain as the database would have it. What can't be a domain is none of the project's, if there is that project.
fn canonical_domain(database: &Database, project: &str, domain: &str) -> Result<String, ApiError> {
    match Domain::normalise(domain) {
        Ok(domain) => Ok(domain.as_str().to_owned()),
        Err(_) => {
            let found = database.read(|transaction| find_project(transaction, project))?;
            Err(found.map_or(ApiError::NoSuchProject, |_| ApiError::NoSuchDomain))
        }
    }
}

/// Reads all of a body, in time.
async fn read_body(body: Incoming) -> Result<Bytes, ApiError> {
    let mut body = body;
    let reading = async {
        let mut bytes = Vec::new();
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            // The sender is gone, or does not speak HTTP: nobody reads the answer.
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
    let mut answer = response_with(kind, body);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
