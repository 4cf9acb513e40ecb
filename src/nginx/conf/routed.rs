//! The locations with `urlproxy`, for explanations of routing decisions.

use super::location::LocationConf;
use crate::admin::place::{LocationName, ServerMatch, ServerName};
use crate::nginx::ffi::parser::Location;
use crate::nginx::ffi::server_block::{Listener, ServerBlock, ServerId};

/// A location with `urlproxy`, or an `if` inside one with its own.
pub(in crate::nginx) struct RoutedLocation {
    server: ServerId,
    /// Whether it is the default server of a listening socket. Known after the http block is read.
    is_default_server: bool,
    /// The names of the server block.
    pub server_names: Vec<ServerName>,
    /// The name of the location.
    pub name: LocationName,
    /// Whether nginx merges slashes in the paths of its requests. Known after the http block is read.
    pub merges_slashes: bool,
    /// The merged settings.
    pub settings: LocationConf,
}

impl RoutedLocation {
    /// The location that is being merged; nginx frees the names of its server later.
    pub fn new(server: ServerBlock<'_>, location: &Location<'_>, settings: &LocationConf) -> Self {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let server_name = |(name, is_regex): (&[u8], bool)| match is_regex {
            true => ServerName::Regex(text(name)),
            false => ServerName::Text(text(name)),
        };
        let name = text(location.name());
        let name = if location.is_regex() {
            LocationName::Regex(name)
        } else if location.is_exact() {
            LocationName::Exact(name)
        } else if location.is_named() {
            LocationName::Named(name)
        } else {
            LocationName::Prefix(name)
        };
        Self {
            server: server.id,
            is_default_server: false,
            server_names: server.names.into_iter().map(server_name).collect(),
            name,
            merges_slashes: server.merges_slashes,
            settings: settings.clone(),
        }
    }

    /// Notes where its server listens. nginx parses a URI before it knows the host, with `merge_slashes` of the default server,
    /// unless SNI has chosen another.
    pub fn set_listeners(&mut self, listeners: &[Listener]) {
        let own = listeners.iter().filter(|listener| listener.has(self.server));
        self.is_default_server = own.clone().any(|listener| listener.default_server == self.server);
        if own.clone().all(|listener| !listener.has_tls)
            && let Some(listener) = own.clone().next()
        {
            self.merges_slashes = listener.merges_slashes;
        }
    }

    /// How well its server matches a normalized host.
    pub fn match_host(&self, host: &str) -> ServerMatch {
        let otherwise = if self.is_default_server { ServerMatch::Default } else { ServerMatch::No };
        ServerMatch::best(&self.server_names, host).max(otherwise)
    }
}
