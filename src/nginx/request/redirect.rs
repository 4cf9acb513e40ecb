//! The canonical redirect: the location on the tool's own host.

use crate::nginx::conf::location::LocationConf;
use crate::nginx::ffi::request::Request;
use crate::route::{PathRequest, RedirectRequest, split_path};

/// The location for a path, for the URI as sent by the client and for its query. `None` without `urlproxy_canonical`.
pub(super) fn location(conf: &LocationConf, path: &[u8], written: &[u8], query: &[u8]) -> Option<Vec<u8>> {
    let PathRequest { tool, rest } = split_path(path);
    Some(conf.canonical()?.location(&RedirectRequest { tool, rest, written, query }))
}

/// Adds `Location` to the answer. `None` if out of memory.
pub(super) fn add_location(request: Request<'_>, conf: &LocationConf) -> Option<()> {
    let location = location(conf, request.path(), request.unparsed_uri(), request.args())?;
    // One of before, of an error page that is a tool's too, would be a second.
    request.set_location(request.pool().copy(&location)?)
}
