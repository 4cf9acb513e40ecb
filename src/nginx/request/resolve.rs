//! The route of a request, found once: one decision counts as long as path and configuration ask for the same.

use std::ptr;

use super::route::{Outcome, RequestRoute};
use super::search::{Target, look_up};
use crate::nginx::conf::location::LocationConf;
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::request::{Request, StoredContext};

/// The request's route, found now if it wasn't yet; `None` where `urlproxy` is not set and was not before either.
#[inline(always)]
pub(in crate::nginx) fn resolve<'r>(request: Request<'r>) -> Option<&'r RequestRoute<'r>> {
    if let Some(route) = request.context()
        && request.location_conf().is_some_and(|conf| ptr::eq(route.conf, conf))
        && request.has_path(route.path)
    {
        return Some(route);
    }
    resolve_anew(request)
}

#[inline(never)]
fn resolve_anew<'r>(request: Request<'r>) -> Option<&'r RequestRoute<'r>> {
    let conf = request.location_conf()?;
    let stored = request.stored_context();
    let Some(table) = conf.table() else { return stored };
    let path = request.path();
    if let Some(stored) = stored
        && (ptr::eq(stored.conf, conf) || stored.conf.resolves_like(conf))
        && stored.path == path
    {
        return Some(stored);
    }
    look_up_and_store(request, conf, table, path, request.is_main())
}

/// The route that the variables show: as [`resolve`], but in the page of an error that of the request that failed, until this
/// location passes the request on.
pub(super) fn resolve_for_variables<'r>(request: Request<'r>) -> Option<&'r RequestRoute<'r>> {
    if request.is_error_page()
        && let Some(stored) = request.stored_context()
    {
        return Some(stored);
    }
    resolve(request)
}

/// The route for a request that is passed on now: if the record has changed since it was found, the new one counts.
#[inline(always)]
pub(in crate::nginx) fn resolve_now<'r>(request: Request<'r>) -> Option<&'r RequestRoute<'r>> {
    let route = resolve(request)?;
    if route.is_current() { Some(route) } else { refresh(request, route) }
}

#[cold]
fn refresh<'r>(request: Request<'r>, route: &'r RequestRoute<'r>) -> Option<&'r RequestRoute<'r>> {
    let newer = look_up_and_store(request, route.conf, route.table, route.path, false)?;
    if newer.outcome == Outcome::Unready && newer.version.is_none() {
        // The table could not tell: what was found before is the best that there is.
        request.set_context(route);
        return Some(route);
    }
    newer.keep_choice(route);
    Some(newer)
}

/// Looks the route up, and keeps it with the request. `None` only when memory has run out.
fn look_up_and_store<'r>(
    request: Request<'r>,
    conf: &'r LocationConf,
    table: &'r TableConf,
    path: &'r [u8],
    may_redirect: bool,
) -> Option<&'r RequestRoute<'r>> {
    let target = Target::of(conf.mode(), path, || request.host());
    let tool = if let Target::Tool(path) = &target { path.tool } else { b"" };
    let found = request.pool().allocate(|| StoredContext::new(RequestRoute::new(conf, table, path, tool)))?;
    look_up(found, request.pool(), &target, may_redirect)?;
    Some(request.store_context(found))
}
