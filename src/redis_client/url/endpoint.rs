//! Where a server is.

use std::fmt;
use std::path::PathBuf;

use crate::redis_client::tls_settings::TlsSettings;

/// The endpoint of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Plain TCP.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// TLS over TCP.
    Tls {
        /// A name or an address, IPv6 without brackets; the server's certificate must be valid for it.
        host: String,
        /// TCP port.
        port: u16,
        /// Authorities to trust, and the client's certificate.
        tls: TlsSettings,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// A host and a port over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}
