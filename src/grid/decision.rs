//! What became of a command, as its client, the log and the metrics have it.

use std::net::{IpAddr, SocketAddr};

use tracing::{debug, info, warn};

use super::destination::DestinationError;
use super::identd::IdentError;
use super::metrics::{CommandKind, Outcome};
use super::protocol::{Command, Reply};
use crate::daemon::StoreError;
use crate::route::{Backend, BackendError, MAX_ROUTES, PatternError, ToolName};

/// Characters of a client's text that a line of the log shows.
const SHOWN_CHARS: usize = 256;

/// What was done.
#[derive(Debug)]
pub(super) enum Completed {
    /// The pattern's requests go there.
    Registered {
        /// Where.
        backend: Backend,
        /// Who listens there.
        server: ServerState,
        /// The tool that was routed there before.
        evicted: Option<String>,
    },
    /// They go there, as they did or anew.
    Renewed {
        /// Where.
        backend: Backend,
        /// They did not before.
        is_new: bool,
        /// The tool that was routed there before.
        evicted: Option<String>,
    },
    /// The route is removed.
    Unregistered,
    /// There is none.
    Absent,
    /// There is one that is not meant.
    Kept,
}

/// What is known about the server that a client registers, where it is not another user's.
#[derive(Debug)]
pub(super) enum ServerState {
    /// It is the tool's.
    Own,
    /// Connections are refused: it does not listen yet.
    NotListening,
    /// It is not known whose it is, for this reason.
    Unknown(String),
}

/// Why a client does not get what it asks.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
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
    #[error("{address} is another user's server, {user:?}, says the identd of its host")]
    ForeignServer { address: SocketAddr, user: String },
    #[error("tool {holder:?} is routed to {address}, and the caller's own server is not known to listen there: {why}")]
    AddressHeld { address: SocketAddr, holder: String, why: String },
    #[error("nothing listens at {0}")]
    NothingListens(SocketAddr),
    #[error("{why} while asking whose server {address} is")]
    ServerUnknown { address: SocketAddr, why: String },
    #[error("the pattern leads elsewhere by now, as to a newer job")]
    Superseded,
    #[error("the tool has {MAX_ROUTES} patterns already")]
    TooManyPatterns,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} while describing the route's origin")]
    Origin(#[from] serde_json::Error),
}

impl CommandError {
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Ident(_) | Self::Gone => Reply::IdentFailed,
            Self::NoTool { .. } => Reply::NoTool,
            _ => Reply::Fail,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Ident(_) | Self::Gone => Outcome::ident_failed,
            Self::NoTool { .. } => Outcome::no_tool,
            Self::Store(_) => Outcome::redis_failed,
            Self::ForeignServer { .. } | Self::AddressHeld { .. } => Outcome::address_taken,
            _ => Outcome::refused,
        }
    }
}

impl CommandKind {
    /// The kind of a command.
    pub(super) fn of(command: Command<'_>) -> Self {
        match command {
            Command::Register { .. } => Self::register,
            Command::Renew { .. } => Self::renew,
            Command::Unregister { .. } => Self::unregister,
            Command::UnregisterUrl { .. } => Self::unregister_url,
        }
    }
}

/// One line for what a tool's client asked and got, and one for the tool that lost its route by that.
pub(super) fn log_completed(command: Command<'_>, peer: IpAddr, tool: &ToolName, done: &Completed) {
    let (tool, pattern) = (tool.as_str(), shown(command.pattern()));
    match done {
        Completed::Registered { backend, server, evicted } => {
            let canonical = matches!(command, Command::Register { canonical: true, .. });
            let destination = backend.to_string();
            let server = match server {
                ServerState::Own => "the tool's",
                ServerState::NotListening => "does not listen yet",
                ServerState::Unknown(why) => why,
            };
            info!(tool, %peer, pattern, destination, canonical, server, "registered");
            log_evicted(evicted.as_deref(), backend, tool);
        }
        Completed::Renewed { backend, is_new, evicted } => {
            let destination = backend.to_string();
            if *is_new {
                info!(tool, %peer, pattern, destination, "renewed: the route was missing");
            } else {
                debug!(tool, %peer, pattern, destination, "renewed: the route was there");
            }
            log_evicted(evicted.as_deref(), backend, tool);
        }
        Completed::Unregistered => info!(tool, %peer, pattern, "unregistered"),
        Completed::Absent => info!(tool, %peer, pattern, "nothing to unregister: there is no such route"),
        Completed::Kept => {
            let url = command.url().map(shown);
            info!(tool, %peer, pattern, url, "nothing to unregister: the route is another host's, or leads elsewhere");
        }
    }
}

fn log_evicted(evicted: Option<&str>, backend: &Backend, by: &str) {
    if let Some(tool) = evicted {
        let destination = backend.to_string();
        warn!(tool, destination, by, "withdrawn: another tool's server listens at the route's address now");
    }
}

/// One line for what a client asked and did not get. A renewal asks again every minute.
pub(super) fn log_refused(command: Command<'_>, peer: IpAddr, tool: Option<&ToolName>, refusal: &CommandError) {
    let (tool, asked, destination) = (tool.map(ToolName::as_str), command.name(), command.url().map(shown));
    let (pattern, reply, reason) = (shown(command.pattern()), refusal.reply().as_str(), refusal.to_string());
    match refusal {
        CommandError::Superseded => debug!(tool, %peer, asked, pattern, destination, reply, reason, "refused"),
        CommandError::NothingListens(_) | CommandError::ServerUnknown { .. } => {
            info!(tool, %peer, asked, pattern, destination, reply, reason, "refused");
        }
        _ => warn!(tool, %peer, asked, pattern, destination, reply, reason, "refused"),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
