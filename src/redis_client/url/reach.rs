//! How to find a server.

use std::fmt;

use super::endpoint::{Address, Endpoint};
use super::sentinels::Sentinels;

/// How to find the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At a fixed endpoint.
    Direct(Endpoint),
    /// By asking Sentinels for the master.
    Sentinels(Sentinels),
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
