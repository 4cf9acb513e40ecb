//! Decides who may have what, and has it committed before anybody is told `ok`.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tracing::{info, warn};

use super::destination::{self, DestinationError};
use super::identd::{self, IdentError};
use super::protocol::{Command, Reply};
use super::store::{Store, StoreError};
use crate::registry::{self, Origin};
use crate::route::{Backend, BackendError, Pattern, PatternError, ToolName};

/// Characters of a client's text that a line of the log shows.
const SHOWN_CHARS: usize = 256;

/// What the decisions rest on.
#[derive(Debug)]
pub struct Registrar {
    /// Whose tools: accounts are `<project>.<tool>`.
    pub project: String,
    /// Canonical hosts are `<tool>.<canonical_domain>`.
    pub canonical_domain: String,
    /// Destinations beside a client's own address.
    pub allowed: Vec<IpNet>,
    /// Where identds listen.
    pub ident_port: u16,
    /// How long one may take.
    pub ident_timeout: Duration,
    /// Where routes are kept.
    pub store: Store,
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
}

impl Registrar {
    /// Does what a client asks, or not; one line in the log says which, and why.
    pub async fn decide(&self, command: Command<'_>, peer: SocketAddr, local: SocketAddr) -> Reply {
        let host = peer.ip();
        match self.carry_out(command, peer, local).await {
            Ok(tool) => {
                let tool = tool.as_str();
                match command {
                    Command::Register { pattern, url, canonical } => {
                        info!(tool, peer = %host, pattern, destination = url, canonical, "registered");
                    }
                    Command::Unregister { pattern } => info!(tool, peer = %host, pattern, "unregistered"),
                }
                Reply::Ok
            }
            Err((tool, refusal)) => {
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
    ) -> Result<ToolName, (Option<ToolName>, Refusal)> {
        let user = identd::ask(peer, local, self.ident_port, self.ident_timeout);
        let user = user.await.map_err(|error| (None, error.into()))?;
        let Some(tool) = self.tool_of(&user) else {
            return Err((None, Refusal::NoTool { user, project: self.project.clone() }));
        };
        let outcome = match command {
            Command::Register { pattern, url, canonical } => {
                let origin = Origin {
                    source: "proxylistener".into(),
                    owner: user,
                    host: peer.ip().to_string(),
                    since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs()),
                };
                self.register(&tool, pattern, url, canonical, &origin, peer.ip()).await
            }
            Command::Unregister { pattern } => self.unregister(&tool, pattern, peer.ip()).await,
        };
        match outcome {
            Ok(()) => Ok(tool),
            Err(refusal) => Err((Some(tool), refusal)),
        }
    }

    async fn register(
        &self,
        tool: &ToolName,
        pattern: &str,
        url: &str,
        canonical: bool,
        origin: &Origin,
        own: IpAddr,
    ) -> Result<(), Refusal> {
        let backend: Backend = url.parse()?;
        destination::check(&backend, own, &self.allowed)?;
        let pattern = Pattern::try_new(pattern)?;
        let mut transaction = registry::register(tool, &pattern, &backend, origin)?;
        if canonical {
            let host = format!("{tool}.{}", self.canonical_domain);
            registry::set_canonical(&mut transaction, tool, &pattern, &host);
        } else {
            registry::forget_canonical(&mut transaction, tool, &pattern);
        }
        Ok(self.store.commit(&transaction).await?)
    }

    async fn unregister(&self, tool: &ToolName, pattern: &str, own: IpAddr) -> Result<(), Refusal> {
        let pattern = Pattern::try_new(pattern)?;
        let gone = self.store.commit(&registry::unregister_if_from(tool, &pattern, &own.to_string())).await?;
        if gone { Ok(()) } else { Err(Refusal::AnotherHost) }
    }

    fn tool_of(&self, user: &str) -> Option<ToolName> {
        let name = user.strip_prefix(self.project.as_str())?.strip_prefix('.')?;
        if name.is_empty() { None } else { ToolName::try_new(name.as_bytes()).ok() }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
