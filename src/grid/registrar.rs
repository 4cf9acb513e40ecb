//! Decides who may have what, and has it committed before anybody is told `ok`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::destination::{DestinationError, Resolver};
use super::identd::{self, IdentError};
use super::metrics::{Asked, Metrics, Outcome};
use super::protocol::{Command, Reply};
use super::settings::{LivePolicy, Policy, Settings};
use crate::daemon::{Permit, Store, StoreError};
use crate::registry::{self, Origin, Ownership, Registration};
use crate::route::{Backend, BackendError, MAX_ROUTES, Pattern, PatternError, ToolName};

/// Characters of a client's text that a line of the log shows.
const SHOWN_CHARS: usize = 256;

/// What the decisions rest on.
#[derive(Debug)]
pub struct Registrar {
    pub(super) live: LivePolicy,
    /// Told when the policy has been exchanged.
    pub(super) reloaded: Notify,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    resolver: Resolver,
}

/// Why a client does not get what it asks.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Ident(#[from] IdentError),
    #[error("user {user:?} is no tool of {project:?}")]
    NoTool { user: String, project: String },
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("the client was gone when its identd had answered: another may have its port by now")]
    Gone,
    #[error("user {0:?} has as many commands under way on this host as one user may have")]
    TooManyAtOnce(String),
    #[error("tool {0:?} is routed to this address, and nothing shows that its server is gone")]
    AddressHeld(String),
    #[error("the tool has {MAX_ROUTES} patterns already")]
    TooManyPatterns,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} while describing the route's origin")]
    Origin(#[from] serde_json::Error),
}

impl Refusal {
    fn reply(&self) -> Reply {
        match self {
            Self::Ident(_) | Self::Gone => Reply::IdentFailed,
            Self::NoTool { .. } => Reply::NoTool,
            _ => Reply::Fail,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Ident(_) | Self::Gone => Outcome::ident_failed,
            Self::NoTool { .. } => Outcome::no_tool,
            Self::Store(_) => Outcome::redis_failed,
            _ => Outcome::refused,
        }
    }
}

impl Registrar {
    /// Connects to nothing yet; what it counts is told by `registry`.
    pub fn new(settings: &Settings, registry: &mut Registry) -> Self {
        settings.policy.make_room();
        let metrics = Metrics::register(registry);
        Self {
            live: Arc::new(ArcSwap::from_pointee(settings.policy.clone())),
            reloaded: Notify::new(),
            store: Store::new(settings.client.clone(), metrics.redis.clone()),
            metrics,
            resolver: Resolver::default(),
        }
    }

    /// Does what a client asks, or not; one line in the log says which, and why.
    pub async fn decide(&self, command: Command<'_>, client: &Client<'_>) -> Reply {
        let host = client.peer.ip();
        let kind = match command {
            Command::Register { .. } => Asked::register,
            Command::Unregister { .. } => Asked::unregister,
        };
        match self.carry_out(command, client).await {
            Ok(Done { tool, backend }) => {
                self.metrics.decided(kind, Outcome::ok);
                let tool = tool.as_str();
                match (command, backend) {
                    (Command::Register { pattern, canonical, .. }, Some(backend)) => {
                        info!(tool, peer = %host, pattern, destination = backend.to_string(), canonical, "registered");
                    }
                    (Command::Register { pattern, .. } | Command::Unregister { pattern }, _) => {
                        info!(tool, peer = %host, pattern, "unregistered");
                    }
                }
                Reply::Ok
            }
            Err((tool, refusal)) => {
                self.metrics.decided(kind, refusal.outcome());
                let reply = refusal.reply();
                let tool = tool.as_ref().map(ToolName::as_str);
                let (asked, pattern, destination) = match command {
                    Command::Register { pattern, url, .. } => ("register", pattern, Some(shown(url))),
                    Command::Unregister { pattern } => ("unregister", pattern, None),
                };
                let (pattern, reason) = (shown(pattern), refusal.to_string());
                warn!(tool, peer = %host, asked, pattern, destination, reply = reply.as_str(), reason, "refused");
                reply
            }
        }
    }

    async fn carry_out(&self, command: Command<'_>, client: &Client<'_>) -> Result<Done, (Option<ToolName>, Refusal)> {
        let policy = self.live.load_full();
        let Client { peer, local, stream, permit } = *client;
        let begun = Instant::now();
        let user = identd::ask(peer, local, policy.ident_port, policy.ident_timeout).await;
        self.metrics.ident_took(begun.elapsed());
        let user = user.map_err(|error| (None, error.into()))?;
        // Once a client has reset its connection, its port may be another user's, and the answer was about him.
        if !matches!(stream.take_error(), Ok(None)) {
            return Err((None, Refusal::Gone));
        }
        if permit.set_owner(user.clone()).is_err() {
            return Err((policy.tool_of(&user), Refusal::TooManyAtOnce(user)));
        }
        let Some(tool) = policy.tool_of(&user) else {
            return Err((None, Refusal::NoTool { user, project: policy.project.clone() }));
        };
        let outcome = match command {
            Command::Register { pattern, url, canonical } => {
                let canonical = canonical.then(|| format!("{tool}.{}", policy.canonical_domain));
                let route = Asking { tool: &tool, owner: user, own: peer.ip(), policy: &policy };
                self.register(route, pattern, url, canonical.as_deref()).await.map(Some)
            }
            Command::Unregister { pattern } => self.unregister(&tool, pattern, peer.ip()).await.map(|()| None),
        };
        match outcome {
            Ok(backend) => Ok(Done { tool, backend }),
            Err(refusal) => Err((Some(tool), refusal)),
        }
    }

    async fn register(
        &self,
        asking: Asking<'_>,
        pattern: &str,
        url: &str,
        canonical: Option<&str>,
    ) -> Result<Backend, Refusal> {
        let Asking { tool, owner, own, policy } = asking;
        let backend = url.parse()?;
        let pattern = Pattern::try_new(pattern)?;
        let backend = self.resolver.resolve(tool, backend, own, &policy.allowed).await?;
        let is_elsewhere = backend.socket_addr().is_none_or(|address| address.ip() != own);
        let origin = Origin {
            source: registry::GRID.into(),
            owner,
            host: own.to_string(),
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs()),
            destination: is_elsewhere.then(|| backend.to_string()),
        };
        let ownership = Ownership::Unproven;
        let call = registry::register(tool, &pattern, &backend, canonical, &origin, ownership)?;
        match self.store.commit(&call).await? {
            Registration::Done { .. } => Ok(backend),
            Registration::AddressHeld(holder) => Err(Refusal::AddressHeld(holder)),
            Registration::TooManyPatterns | Registration::Superseded => Err(Refusal::TooManyPatterns),
        }
    }

    async fn unregister(&self, tool: &ToolName, pattern: &str, own: IpAddr) -> Result<(), Refusal> {
        // Whether or not it may still be registered: an earlier version took more.
        self.store.commit(&registry::unregister_if_from(tool, pattern, &[own])).await?;
        Ok(())
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub peer: SocketAddr,
    /// Ours, as it knows it.
    pub local: SocketAddr,
    /// The connection.
    pub stream: &'a TcpStream,
    /// Its place.
    pub permit: &'a Permit<IpAddr, String>,
}

/// Who registers, from where, and by which rules.
struct Asking<'a> {
    tool: &'a ToolName,
    owner: String,
    own: IpAddr,
    policy: &'a Policy,
}

/// What was done, for whom.
struct Done {
    tool: ToolName,
    /// Where its requests go now, if they do.
    backend: Option<Backend>,
}

impl Policy {
    fn tool_of(&self, user: &str) -> Option<ToolName> {
        let name = user.strip_prefix(self.project.as_str())?.strip_prefix('.')?;
        if name.is_empty() { None } else { ToolName::try_new(name.as_bytes()).ok() }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
