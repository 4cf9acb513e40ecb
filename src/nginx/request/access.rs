//! Answers requests that no backend serves: misses, redirects, errors. Runs in the access phase and again before content.

use nginx_sys::{
    NGX_HTTP_BAD_REQUEST, NGX_HTTP_MOVED_PERMANENTLY, NGX_HTTP_SERVICE_UNAVAILABLE, NGX_HTTP_TEMPORARY_REDIRECT,
};
use ngx::core::Status;

use super::loop_mark;
use super::redirect::add_location;
use super::resolve::{resolve, resolve_now};
use super::response::add_retry_after;
use super::route::{Outcome, RequestRoute};
use crate::nginx::conf::location::LocationConf;
use crate::nginx::ffi::handler::{self, Handler};
use crate::nginx::ffi::request::Request;

/// The access phase handler.
pub(in crate::nginx) struct Access;

impl Handler for Access {
    #[inline(always)]
    fn handle(request: Request<'_>) -> handler::HandlerStatus {
        route_or_answer(request, resolve).map_or_else(|status| status, |_| Status::NGX_DECLINED.into())
    }
}

/// The last handler before content. Repeats [`Access`] for subrequests, which have no access phase, and for requests whose
/// URI or record has changed since (`try_files`, `auth_request`, `limit_req`). Then adds the loop mark.
pub(in crate::nginx) struct BeforeContent;

impl Handler for BeforeContent {
    #[inline(always)]
    fn handle(request: Request<'_>) -> handler::HandlerStatus {
        match route_or_answer(request, resolve_now) {
            Ok(Some((conf, route))) => loop_mark::check(request, route, conf).into(),
            Ok(None) => Status::NGX_DECLINED.into(),
            Err(status) => status,
        }
    }
}

/// A location and the request's route there.
type Routed<'r> = (&'r LocationConf, &'r RequestRoute<'r>);

/// Resolves the request's route; `None` if the location has no `urlproxy`. The error is the status for nginx when no backend
/// serves the request.
#[inline(always)]
fn route_or_answer<'r>(
    request: Request<'r>,
    resolve: impl Fn(Request<'r>) -> Option<&'r RequestRoute<'r>>,
) -> Result<Option<Routed<'r>>, handler::HandlerStatus> {
    let Some(conf) = request.location_conf().filter(|conf| conf.table().is_some()) else { return Ok(None) };
    let Some(route) = resolve(request) else { return Err(Status::NGX_ERROR.into()) };
    match route.outcome {
        Outcome::Route | Outcome::Default => Ok(Some((conf, route))),
        outcome => Err(answer_without_backend(request, conf, outcome)),
    }
}

/// Answers a request that no backend serves, and returns the status for nginx.
#[inline(never)]
fn answer_without_backend(request: Request<'_>, conf: &LocationConf, outcome: Outcome) -> handler::HandlerStatus {
    let status = match outcome {
        Outcome::Redirect | Outcome::Moved => match add_location(request, conf) {
            Some(()) if outcome == Outcome::Moved => NGX_HTTP_MOVED_PERMANENTLY,
            Some(()) => NGX_HTTP_TEMPORARY_REDIRECT,
            None => return Status::NGX_ERROR.into(),
        },
        Outcome::Route | Outcome::Default => return Status::NGX_DECLINED.into(),
        Outcome::Miss => conf.options.miss_status().into(),
        Outcome::NoHost => NGX_HTTP_BAD_REQUEST,
        Outcome::Unready => {
            add_retry_after(request);
            NGX_HTTP_SERVICE_UNAVAILABLE
        }
    };
    handler::HandlerStatus::finalize(status)
}
