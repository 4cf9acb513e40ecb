//! The outcome of a command, for its client, the log and the metrics.

use std::net::{IpAddr, SocketAddr};

use tracing::{debug, info, warn};

use super::destination::DestinationError;
use super::identd::IdentError;
use super::metrics::{CommandKind, Outcome};
use super::protocol::{Command, Reply};
use crate::daemon::StoreError;
use crate::route::{Backend, BackendError, MAX_ROUTES, PatternError, ToolName};

/// Longest text of a client in a log line, in characters.
const SHOWN_CHARS: usize = 256;

/// A command that was carried out.
#[derive(Debug)]
pub(super) enum Completed {
    /// The route was written.
    Registered { backend: Backend, server: ServerState, evicted: Option<String> },
    /// The route was there, or is new.
    Renewed { backend: Backend, is_new: bool, evicted: Option<String> },
    /// The route was removed.
    Unregistered,
    /// There was no such route.
    Absent,
    /// The route belongs to another host, or leads elsewhere.
    Kept,
}

/// The server at a registered address. Another user's server is an error instead.
#[derive(Debug)]
pub(super) enum ServerState {
    /// It is the tool's own.
    Own,
    /// Connections are refused: it does not listen yet.
    NotListening,
    /// Its owner is unknown, for this reason.
    Unknown(String),
}

/// Why a command was refused or failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Ident(#[from] IdentError),
    #[error("user {user:?} is not a tool account of project {project:?}")]
    NoTool { user: String, project: String },
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("the client disconnected before its identd replied; its port may belong to another user by now")]
    Disconnected,
    #[error("user {0:?} has too many concurrent commands on this host")]
    TooManyAtOnce(String),
    #[error("the server at {address} belongs to another user, {user:?}, according to its host's identd")]
    ForeignServer { address: SocketAddr, user: String },
    #[error("tool {holder:?} is routed to {address}, and the caller is not proven to own the server there: {why}")]
    AddressHeld { address: SocketAddr, holder: String, why: String },
    #[error("nothing listens at {0}")]
    NothingListens(SocketAddr),
    #[error("{why} while identifying the owner of the server at {address}")]
    ServerUnknown { address: SocketAddr, why: String },
    #[error("the pattern has a newer route")]
    Superseded,
    #[error("the tool already has {MAX_ROUTES} patterns, the most allowed")]
    TooManyPatterns,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} while encoding the route's origin")]
    Origin(#[from] serde_json::Error),
}

impl CommandError {
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Ident(_) | Self::Disconnected => Reply::IdentFailed,
            Self::NoTool { .. } => Reply::NoTool,
            _ => Reply::Fail,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Ident(_) | Self::Disconnected => Outcome::ident_failed,
            Self::NoTool { .. } => Outcome::no_tool,
            Self::Store(_) => Outcome::redis_failed,
            Self::ForeignServer { .. } | Self::AddressHeld { .. } => Outcome::address_taken,
            _ => Outcome::refused,
        }
    }
}

impl CommandKind {
    pub(super) fn of(command: Command<'_>) -> Self {
        match command {
            Command::Register { .. } => Self::register,
            Command::Renew { .. } => Self::renew,
            Command::Unregister { .. } => Self::unregister,
            Command::UnregisterUrl { .. } => Self::unregister_url,
        }
    }
}

/// Logs a command that was carried out, and the withdrawal of another tool's route that it caused.
pub(super) fn log_completed(command: Command<'_>, peer: IpAddr, tool: &ToolName, done: &Completed) {
    let (tool, pattern) = (tool.as_str(), shown(command.pattern()));
    match done {
        Completed::Registered { backend, server, evicted } => {
            let canonical = matches!(command, Command::Register { canonical: true, .. });
            let destination = backend.to_string();
            let server = match server {
                ServerState::Own => "own",
                ServerState::NotListening => "not listening yet",
                ServerState::Unknown(why) => why,
            };
            info!(tool, %peer, pattern, destination, canonical, server, "registered");
            log_evicted(evicted.as_deref(), backend, tool);
        }
        Completed::Renewed { backend, is_new, evicted } => {
            let destination = backend.to_string();
            if *is_new {
                info!(tool, %peer, pattern, destination, "renewed; missing route restored");
            } else {
                debug!(tool, %peer, pattern, destination, "renewed; route unchanged");
            }
            log_evicted(evicted.as_deref(), backend, tool);
        }
        Completed::Unregistered => info!(tool, %peer, pattern, "unregistered"),
        Completed::Absent => info!(tool, %peer, pattern, "nothing to unregister; no such route"),
        Completed::Kept => {
            let url = command.url().map(shown);
            info!(tool, %peer, pattern, url, "nothing to unregister; the route is another host's or leads elsewhere");
        }
    }
}

fn log_evicted(evicted: Option<&str>, backend: &Backend, new_tool: &str) {
    if let Some(tool) = evicted {
        let destination = backend.to_string();
        warn!(tool, destination, new_tool, "route withdrawn; another tool's server listens at its address");
    }
}

/// Logs a command that failed. Renewals come every minute, so those that fail in normal operation are no warnings.
pub(super) fn log_failed(command: Command<'_>, peer: IpAddr, tool: Option<&ToolName>, error: &CommandError) {
    let (tool, destination) = (tool.map(ToolName::as_str), command.url().map(shown));
    let (pattern, reply, reason) = (shown(command.pattern()), error.reply().as_str(), error.to_string());
    let command = command.name();
    match error {
        CommandError::Superseded => {
            debug!(tool, %peer, command, pattern, destination, reply, reason, "command refused")
        }
        CommandError::NothingListens(_) | CommandError::ServerUnknown { .. } => {
            info!(tool, %peer, command, pattern, destination, reply, reason, "command refused");
        }
        _ => warn!(tool, %peer, command, pattern, destination, reply, reason, "command refused"),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
