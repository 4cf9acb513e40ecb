//! Where a server is, and how to find it.

use std::fmt;
use std::path::PathBuf;

use super::Sentinels;
use crate::redis_client::tls_settings::TlsSettings;

/// How to find the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At a fixed endpoint.
    Direct(Endpoint),
    /// By asking Sentinels for the master.
    Sentinels(Sentinels),
}

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

/// The address without user, password and database: `host:port`, a path, or the Sentinels with the name of the master.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(Endpoint::Unix(path)) => write!(f, "{}", path.display()),
            Self::Direct(Endpoint::Tcp { host, port } | Endpoint::Tls { host, port, .. }) => {
                write!(f, "{}", Address { host: host.clone(), port: *port })
            }
            Self::Sentinels(sentinels) => write!(f, "{sentinels}"),
        }
    }
}
