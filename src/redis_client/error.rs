//! Why there is no connection to Redis, or no longer.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::resp::RespError;

/// Why a connection could not be made or must be dropped. Except for [`ConnectionError::Server`] from
/// [`Connection::ask`](super::Connection::ask), the connection is unusable afterwards.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The host has no address, or not in time.
    #[error("cannot resolve host {host:?}: {error}")]
    Resolve {
        /// The host name.
        host: String,
        /// The resolver's answer.
        error: io::Error,
    },
    /// No address of the server accepted the connection; this is about the last one tried.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// `address:port` or a path.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// TLS was not agreed on, or the server's certificate not accepted.
    #[error("no TLS with {host:?}: {reason}")]
    Tls {
        /// The host that the certificate should have been for.
        host: String,
        /// What was wrong.
        reason: String,
    },
    /// The server refused: wrong password, too many clients, loading, no permission.
    #[error("server says {0}")]
    Server(#[from] ServerError),
    /// The server does not know `HELLO 3`.
    #[error("server does not know HELLO 3: tracking needs Redis 6 or later")]
    TooOld,
    /// No Sentinel told where the master is.
    #[error("no Sentinel tells where master {master:?} is: {reasons}")]
    NoMaster {
        /// The master's name.
        master: String,
        /// What each Sentinel said.
        reasons: String,
    },
    /// A Sentinel does not know the master; see [`ConnectionError::NoMaster`].
    #[error("knows no master of that name")]
    UnknownMaster,
    /// The server that the Sentinels call the master says that it is a replica, as it does around a failover.
    #[error("{address} is a replica, expected the master {master:?}")]
    NotMaster {
        /// `address:port`.
        address: String,
        /// The master's name.
        master: String,
    },
    /// The Sentinels tell of another master than the one connected to.
    #[error("the master has moved from {from} to {to}")]
    Moved {
        /// `address:port`.
        from: String,
        /// `address:port`.
        to: String,
    },
    /// The server does not tell whether it is the master.
    #[error("server says {0} when asked for its ROLE, which a sentinel:// source depends on")]
    NoRole(ServerError),
    /// The server is a replica that may not have everything; this is the state of its link to its master.
    #[error("the replica is not in step with its master (link state {0:?}), so its data may be incomplete")]
    BrokenLink(String),
    /// The server sent a reply that does not answer the command, or nobody's command.
    #[error("unexpected reply {0}")]
    Unexpected(String),
    /// The server sent something that is not RESP, or beyond the limits.
    #[error(transparent)]
    Resp(#[from] RespError),
    /// The server sent nothing for so long although a reply was due.
    #[error("no byte from the server for {0:?}")]
    Silent(Duration),
    /// The server sent bytes, but not a whole reply.
    #[error("reply still incomplete after {0:?}")]
    Slow(Duration),
    /// The server did not take the commands.
    #[error("commands not taken by the server for {0:?}")]
    Stuck(Duration),
    /// The server closed the connection.
    #[error("connection closed by the server")]
    Closed,
    /// The connection broke.
    #[error("connection broken: {0}")]
    Broken(io::Error),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
    /// The connection was used again after an error.
    #[error("connection already given up")]
    GivenUp,
}

impl From<rustix::io::Errno> for ConnectionError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Broken(error.into())
    }
}

/// An error reply in words fit for a log: one line of printable ASCII, at most 200 bytes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError(String);

impl ServerError {
    /// The longest text kept, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Takes the text of an error reply, without its leading `-`.
    pub fn new(text: &[u8]) -> Self {
        Self::without(text, b"")
    }

    /// The same with `***` wherever the text quotes `secret`.
    pub(crate) fn without(text: &[u8], secret: &[u8]) -> Self {
        // Quotation marks are no danger in a log; the debug-like escapes of the standard library would only hurt the eye.
        let escape = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"");
        let (mut text, secret) = (escape(text), escape(secret));
        if !secret.is_empty() {
            text = text.replace(&secret, "***");
        }
        text.truncate(Self::MAX_BYTES);
        Self(text)
    }

    /// Whether the server did not understand the command at all, or not the version of RESP asked for.
    pub(super) fn is_unknown_command(&self) -> bool {
        self.0.starts_with("ERR unknown command") || self.code() == "NOPROTO"
    }

    /// The first word: `ERR`, `NOAUTH`, `WRONGPASS`, `LOADING`, `NOPERM`, `WRONGTYPE` ...
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_is_one_short_printable_line() {
        let error = ServerError::new(b"LOADING Redis is loading 'x'\r\n\x1b[31m\xff");
        assert_eq!(error.code(), "LOADING");
        assert_eq!(error.to_string(), r"LOADING Redis is loading 'x'\r\n\x1b[31m\xff");
        assert_eq!(ServerError::new(&[b'x'; 1000]).to_string().len(), ServerError::MAX_BYTES);
        assert_eq!(ServerError::new(b"").code(), "");
        let quoting = ServerError::without(b"ERR wrong 'AUTH' 'x\ny'", b"x\ny");
        assert_eq!(quoting.to_string(), "ERR wrong 'AUTH' '***'");
        let secret = [b's'; 400];
        assert_eq!(ServerError::without(&[b"ERR ", &secret[..]].concat(), &secret).to_string(), "ERR ***");
    }
}
