//! The canonical redirect: the location on the tool's own host.

use crate::nginx::conf::location::LocationConf;
use crate::nginx::ffi::request::Request;
use crate::route::{PathRequest, RedirectRequest, split_path};

/// Adds `Location` to the answer. `None` if out of memory.
pub(super) fn add_location(request: Request<'_>, conf: &LocationConf) -> Option<()> {
    let PathRequest { tool, rest } = split_path(request.path());
    let moved = RedirectRequest { tool, rest, written: request.unparsed_uri(), query: request.args() };
    let location = conf.canonical()?.location(&moved);
    // One of before, of an error page that is a tool's too, would be a second.
    request.set_location(request.pool().copy(&location)?)
}
