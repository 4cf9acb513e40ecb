//! Connection errors.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::resp::RespError;

/// Why a connection failed. The connection is then unusable, except after [`ConnectionError::Server`] from
/// [`Connection::ask`](super::Connection::ask).
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The host name did not resolve in time.
    #[error("cannot resolve host {host:?}: {error}")]
    Resolve {
        /// The host name.
        host: String,
        /// The resolver's error.
        error: io::Error,
    },
    /// No address of the server accepted the connection; describes the last one tried.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// `address:port` or a path.
        address: String,
        /// The system's error.
        error: io::Error,
    },
    /// The TLS handshake failed, e.g. because of the server's certificate.
    #[error("TLS with {host:?} failed: {reason}")]
    Tls {
        /// The host that the certificate must be valid for.
        host: String,
        /// The TLS library's description.
        reason: String,
    },
    /// The server refused: wrong password, too many clients, loading, no permission.
    #[error("server says {0}")]
    Server(#[from] ServerError),
    /// The server does not know `HELLO 3`.
    #[error("server does not know HELLO 3: tracking needs Redis 6 or later")]
    TooOld,
    /// No Sentinel returned the master's address.
    #[error("no Sentinel knows the address of master {master:?}: {reasons}")]
    NoMaster {
        /// The master's name.
        master: String,
        /// The error of each Sentinel.
        reasons: String,
    },
    /// A Sentinel does not know the master; see [`ConnectionError::NoMaster`].
    #[error("unknown master")]
    UnknownMaster,
    /// A Sentinel named something that is no server's address; see [`ConnectionError::NoMaster`].
    #[error("invalid address of the master: host \"{host}\", port \"{port}\", expected e.g. \"10.0.0.1\" and \"6379\"")]
    InvalidMaster {
        /// As named, escaped.
        host: ServerError,
        /// As named, escaped.
        port: ServerError,
    },
    /// The server that the Sentinels call the master is a replica, as happens around a failover.
    #[error("{address} is a replica, expected the master {master:?}")]
    NotMaster {
        /// `address:port`.
        address: String,
        /// The master's name.
        master: String,
    },
    /// A failover: the Sentinels name another master than the connected one.
    #[error("the master has moved from {from} to {to}")]
    MasterMoved {
        /// `address:port`.
        from: String,
        /// `address:port`.
        to: String,
    },
    /// The server refuses ROLE, so it may not be the master.
    #[error("ROLE failed, but sentinel:// needs it: server says {0}")]
    NoRole(ServerError),
    /// The server is a replica whose data may be incomplete; with the state of its link to the master.
    #[error("the replica is not synchronized with its master (link state {0:?}); its data may be incomplete")]
    BrokenLink(String),
    /// The server sent a reply that does not fit the command, or an unsolicited one.
    #[error("unexpected reply {0}")]
    Unexpected(String),
    /// The server sent data that is not RESP or exceeds the limits.
    #[error(transparent)]
    Resp(#[from] RespError),
    /// The server sent nothing for this long, although a reply was due.
    #[error("server sent nothing for {0:?}")]
    Silent(Duration),
    /// The server sent only part of a reply within this time.
    #[error("reply incomplete after {0:?}")]
    Slow(Duration),
    /// The server did not read our commands for this long.
    #[error("server did not read commands for {0:?}")]
    Stuck(Duration),
    /// The server closed the connection.
    #[error("connection closed by the server")]
    Closed,
    /// The socket failed.
    #[error("connection broken: {0}")]
    Broken(io::Error),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
    /// The connection was used again after an error.
    #[error("connection used after an error")]
    GivenUp,
}

impl From<rustix::io::Errno> for ConnectionError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Broken(error.into())
    }
}

/// An error reply, safe for a log: one line of printable ASCII, at most 200 bytes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError(String);

impl ServerError {
    /// The longest text kept, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// From the text of an error reply, without its leading `-`.
    pub fn new(text: &[u8]) -> Self {
        Self::without(text, b"")
    }

    /// Like [`Self::new`], with each `secret` in the text replaced by `***`.
    pub(crate) fn without(text: &[u8], secret: &[u8]) -> Self {
        // Quotation marks are safe in a log and easier to read without their escapes.
        let escape = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"");
        let (mut text, secret) = (escape(text), escape(secret));
        if !secret.is_empty() {
            text = text.replace(&secret, "***");
        }
        text.truncate(Self::MAX_BYTES);
        Self(text)
    }

    /// Whether the server does not know the command or the requested version of RESP.
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
