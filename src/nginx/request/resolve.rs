//! Finds the route of a request once, and reuses it while path and settings stay the same.

use std::ptr;

use super::route::{Outcome, RequestRoute};
use super::search::{Target, look_up};
use crate::nginx::conf::location::LocationConf;
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::request::{Request, StoredContext};

/// The request's route, looked up on first use. `None` if neither this location nor an earlier one has `urlproxy`.
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

/// The route that variables show: as [`resolve`], but an error page shows the route of the failed request until its location
/// passes the request on.
pub(super) fn resolve_for_variables<'r>(request: Request<'r>) -> Option<&'r RequestRoute<'r>> {
    if request.is_error_page()
        && let Some(stored) = request.stored_context()
    {
        return Some(stored);
    }
    resolve(request)
}

/// The route of a request that is about to be passed on: looked up again if its record has changed.
#[inline(always)]
pub(in crate::nginx) fn resolve_now<'r>(request: Request<'r>) -> Option<&'r RequestRoute<'r>> {
    let route = resolve(request)?;
    if route.is_current() { Some(route) } else { refresh(request, route) }
}

#[cold]
fn refresh<'r>(request: Request<'r>, route: &'r RequestRoute<'r>) -> Option<&'r RequestRoute<'r>> {
    let newer = look_up_and_store(request, route.conf, route.table, route.path, false)?;
    if newer.outcome == Outcome::Unready && newer.version.is_none() {
        // The lookup was inconclusive: the stored route is the best known.
        request.set_context(route);
        return Some(route);
    }
    newer.keep_choice(route);
    Some(newer)
}

/// Looks the route up and stores it with the request. `None` only if out of memory.
fn look_up_and_store<'r>(
    request: Request<'r>,
    conf: &'r LocationConf,
    table: &'r TableConf,
    path: &'r [u8],
    may_redirect: bool,
) -> Option<&'r RequestRoute<'r>> {
    let target = Target::of(conf.options.mode(), path, || request.host());
    let tool = if let Target::Tool(path) = &target { path.tool } else { b"" };
    let found = request.pool().allocate(|| StoredContext::new(RequestRoute::new(conf, table, path, tool)))?;
    look_up(found, request.pool(), &target, may_redirect, ())?;
    Some(request.store_context(found))
}
