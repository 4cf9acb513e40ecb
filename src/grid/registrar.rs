//! Decides who may have what, and has it committed before anybody is told `ok`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::destination::{DestinationError, Resolver};
use super::identd::{self, IdentError};
use super::metrics::{Asked, Metrics, Outcome};
use super::protocol::{Command, Reply};
use super::settings::{LivePolicy, Policy, Settings};
use crate::daemon::{Store, StoreError};
use crate::registry::{self, Origin};
use crate::route::{Backend, BackendError, Pattern, PatternError, ToolName};

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
    #[error("the route was registered from another host")]
    AnotherHost,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} while describing the route's origin")]
    Origin(#[from] serde_json::Error),
}

impl Refusal {
    fn reply(&self) -> Reply {
        match self {
            Self::Ident(_) => Reply::IdentFailed,
            Self::NoTool { .. } => Reply::NoTool,
            _ => Reply::Fail,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Ident(_) => Outcome::ident_failed,
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
    pub async fn decide(&self, command: Command<'_>, peer: SocketAddr, local: SocketAddr) -> Reply {
        let host = peer.ip();
        let kind = match command {
            Command::Register { .. } => Asked::register,
            Command::Unregister { .. } => Asked::unregister,
        };
        match self.carry_out(command, peer, local).await {
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

    async fn carry_out(
        &self,
        command: Command<'_>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Done, (Option<ToolName>, Refusal)> {
        let policy = self.live.load_full();
        let begun = Instant::now();
        let user = identd::ask(peer, local, policy.ident_port, policy.ident_timeout).await;
        self.metrics.ident_took(begun.elapsed());
        let user = user.map_err(|error| (None, error.into()))?;
        let Some(tool) = policy.tool_of(&user) else {
            return Err((None, Refusal::NoTool { user, project: policy.project.clone() }));
        };
        let outcome = match command {
            Command::Register { pattern, url, canonical } => {
                let origin = Origin {
                    source: registry::GRID.into(),
                    owner: user,
                    host: peer.ip().to_string(),
                    since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs()),
                };
                let canonical = canonical.then(|| format!("{tool}.{}", policy.canonical_domain));
                let backend = self.destination(&tool, url, peer.ip(), &policy).await;
                match backend {
                    Ok(backend) => {
                        let registered = self.register(&tool, pattern, &backend, canonical.as_deref(), &origin).await;
                        registered.map(|()| Some(backend))
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Command::Unregister { pattern } => self.unregister(&tool, pattern, peer.ip()).await.map(|()| None),
        };
        match outcome {
            Ok(backend) => Ok(Done { tool, backend }),
            Err(refusal) => Err((Some(tool), refusal)),
        }
    }

    async fn destination(&self, tool: &ToolName, url: &str, own: IpAddr, policy: &Policy) -> Result<Backend, Refusal> {
        Ok(self.resolver.resolve(tool, url.parse()?, own, &policy.allowed).await?)
    }

    async fn register(
        &self,
        tool: &ToolName,
        pattern: &str,
        backend: &Backend,
        canonical: Option<&str>,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        let pattern = Pattern::try_new(pattern)?;
        let mut transaction = registry::register(tool, &pattern, backend, origin)?;
        match canonical {
            Some(host) => registry::set_canonical(&mut transaction, tool, &pattern, host),
            None => registry::forget_canonical(&mut transaction, tool, &pattern),
        }
        Ok(self.store.commit(&transaction).await?)
    }

    async fn unregister(&self, tool: &ToolName, pattern: &str, own: IpAddr) -> Result<(), Refusal> {
        let pattern = Pattern::try_new(pattern)?;
        let gone = self.store.commit(&registry::unregister_if_from(tool, &pattern, &own.to_string())).await?;
        if gone { Ok(()) } else { Err(Refusal::AnotherHost) }
    }
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
