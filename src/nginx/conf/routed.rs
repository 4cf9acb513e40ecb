//! The locations with `urlproxy`, for explanations of routing decisions.

use super::location::LocationConf;
use crate::admin::place::{LocationName, ServerName};
use crate::nginx::ffi::parser::{Location, Parser};

/// A location with `urlproxy`, or an `if` inside one with its own.
pub(in crate::nginx) struct RoutedLocation {
    /// The names of the server block.
    pub servers: Vec<ServerName>,
    /// The name of the location.
    pub name: LocationName,
    /// `merge_slashes` of the server block.
    pub merges_slashes: bool,
    /// The merged settings.
    pub settings: LocationConf,
}

impl RoutedLocation {
    /// The location that is being merged; nginx frees the names of its server later.
    pub fn new(parser: &Parser<'_>, location: &Location<'_>, settings: &LocationConf) -> Self {
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
            servers: parser.server_names().into_iter().map(server_name).collect(),
            name,
            merges_slashes: parser.merges_slashes(),
            settings: settings.clone(),
        }
    }
}
