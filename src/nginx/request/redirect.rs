//! Redirects: to the tool's own host, and from a domain that moved.

use crate::directive::location::Mode;
use crate::nginx::conf::location::LocationConf;
use crate::nginx::ffi::request::Request;
use crate::route::{PathRequest, RedirectRequest, split_path};

/// The location for a host, for a path, for the URI as sent by the client and for its query. `None` without the directive for
/// the location's mode: `urlproxy_canonical`, or `urlproxy_moved`.
pub(super) fn location(conf: &LocationConf, host: &[u8], path: &[u8], written: &[u8], query: &[u8]) -> Option<Vec<u8>> {
    if *conf.options.mode() == Mode::Domain {
        return conf.options.moved_from(host)?.location(host, path, written, query);
    }
    let PathRequest { tool, rest } = split_path(path);
    Some(conf.options.canonical()?.location(&RedirectRequest { tool, rest, written, query }))
}

/// Adds `Location` to the answer. `None` if out of memory.
pub(super) fn add_location(request: Request<'_>, conf: &LocationConf) -> Option<()> {
    let location = location(conf, request.host(), request.path(), request.unparsed_uri(), request.args())?;
    // One of before, of an error page that is a tool's too, would be a second.
    request.set_location(request.pool().copy(&location)?)
}
