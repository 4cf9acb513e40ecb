//! What the module does in nginx's phases: refuse what nobody answers, count what was answered.

use nginx_sys::{
    NGX_HTTP_BAD_REQUEST, NGX_HTTP_SERVICE_UNAVAILABLE, NGX_HTTP_TEMPORARY_REDIRECT, ngx_hash_key,
    ngx_http_finalize_request, ngx_http_request_t, ngx_int_t, ngx_list_push, ngx_table_elt_t, ngx_timeofday,
};
use ngx::core::Status;
use ngx::http::{HttpModuleLocationConf, list_iterator};

use super::guard::guarded;
use super::location_conf::LocationConf;
use super::loop_mark;
use super::module::Module;
use super::pool;
use super::request::{Outcome, RequestRoute, resolve, resolve_now, stored};
use crate::route::{Moved, PathRequest, split_path};
use crate::table::StatusClass;

/// Seconds a client is told to wait for the first load.
const RETRY_AFTER: &[u8] = b"1";

/// Access phase: answers a request for which there is no backend.
pub(super) unsafe extern "C" fn access(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the request it is working on.
        unsafe { refuse(r, resolve) }.map_or_else(|answer| answer, |_| Status::NGX_DECLINED.0)
    })
}

/// The last handler before the content: the same for subrequests, which have no access phase, and for requests that have
/// another URI by now, or have waited (`auth_request`, `limit_req`) while their record changed. Then marks requests that may
/// come back.
pub(super) unsafe extern "C" fn before_content(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the request it is working on.
        match unsafe { refuse(r, resolve_now) } {
            // SAFETY: as above; the request is nginx's, and nobody else is at its headers now.
            Ok(Some((conf, route))) => unsafe { loop_mark::pass(r, route, conf) },
            Ok(None) => Status::NGX_DECLINED.0,
            Err(answer) => answer,
        }
    })
}

/// The route of a request that a backend answers, as `resolve` finds it; `None` where the location has no `urlproxy`.
///
/// # Errors
/// Without a backend the request is answered, or ends; this is what nginx is told.
///
/// # Safety
/// `r` is a request that nginx is working on.
#[inline(always)]
unsafe fn refuse(
    r: *mut ngx_http_request_t,
    resolve: unsafe fn(*mut ngx_http_request_t) -> Option<&'static RequestRoute>,
) -> Result<Option<(&'static LocationConf, &'static RequestRoute)>, ngx_int_t> {
    // SAFETY: the caller's promise; the configuration outlives its requests.
    let Some(conf) = Module::location_conf(unsafe { &*r }).filter(|conf| conf.table().is_some()) else {
        return Ok(None);
    };
    // SAFETY: as above.
    let Some(route) = (unsafe { resolve(r) }) else { return Err(Status::NGX_ERROR.0) };
    match route.outcome {
        Outcome::Route | Outcome::Default => Ok(Some((conf, route))),
        // SAFETY: as above.
        outcome => Err(unsafe { answer(r, conf, outcome) }),
    }
}

/// Answers a request without a backend; what nginx is told.
///
/// # Safety
/// As for [`refuse`].
#[inline(never)]
unsafe fn answer(r: *mut ngx_http_request_t, conf: &LocationConf, outcome: Outcome) -> ngx_int_t {
    let status = match outcome {
        // SAFETY: the caller's promise.
        Outcome::Redirect => match unsafe { add_location(r, conf) } {
            Some(()) => NGX_HTTP_TEMPORARY_REDIRECT,
            None => return Status::NGX_ERROR.0,
        },
        Outcome::Route | Outcome::Default => return Status::NGX_DECLINED.0,
        Outcome::Miss => conf.miss_status().into(),
        Outcome::NoHost => NGX_HTTP_BAD_REQUEST,
        Outcome::Unready => {
            // SAFETY: as above.
            unsafe { add_retry_after(r) };
            NGX_HTTP_SERVICE_UNAVAILABLE
        }
    };
    // SAFETY: as above.
    unsafe { end(r, status) }
}

/// Answers with this status. It is not returned: with `satisfy any`, nginx takes a returned 401 or 403 for one opinion among
/// several.
///
/// # Safety
/// `r` is the request nginx is working on; it is not touched any more.
unsafe fn end(r: *mut ngx_http_request_t, status: u32) -> ngx_int_t {
    // SAFETY: the caller's promise.
    unsafe { ngx_http_finalize_request(r, status as ngx_int_t) };
    Status::NGX_DONE.0
}

/// Says where the request's tool has moved to. `None` when memory has run out.
///
/// # Safety
/// As for [`add_retry_after`]; the request was found to be redirected.
unsafe fn add_location(r: *mut ngx_http_request_t, conf: &LocationConf) -> Option<()> {
    // SAFETY: the caller's promise.
    let request = unsafe { &mut *r };
    // SAFETY: the request's own string; so are the next two.
    let uri = unsafe { pool::bytes(request.uri) };
    // SAFETY: as above.
    let written = unsafe { pool::bytes(request.unparsed_uri) };
    // SAFETY: as above.
    let query = unsafe { pool::bytes(request.args) };
    let PathRequest { tool, rest } = split_path(uri);
    let location = conf.canonical()?.location(&Moved { tool, rest, written, query });
    // SAFETY: the request's pool.
    let location = unsafe { pool::copy(request.pool, &location) }?;
    // One of before, of an error page that is a tool's too, would be a second.
    // SAFETY: nginx's own header, or none.
    if let Some(former) = unsafe { request.headers_out.location.as_mut() } {
        former.hash = 0;
    }
    // SAFETY: the caller's promise.
    request.headers_out.location = unsafe { add_header(r, b"Location", location) }?;
    Some(())
}

/// Log phase: adds the finished request to its tool's counters.
pub(super) unsafe extern "C" fn count(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded(Status::NGX_OK.0, || {
        // SAFETY: nginx passes the request it is about to free.
        let request = unsafe { &*r };
        // SAFETY: as above.
        let Some((counters, ticket)) = unsafe { stored(request) }.and_then(|route| route.counters) else {
            return Status::NGX_OK.0;
        };
        let status = if request.err_status != 0 { request.err_status } else { request.headers_out.status };
        // SAFETY: a request has a connection.
        let sent = unsafe { (*request.connection).sent };
        let now = ngx_timeofday();
        let milliseconds = (now.sec - request.start_sec) * 1000 + (now.msec as i64 - request.start_msec as i64);
        counters.add(ticket, StatusClass::of(status), sent.max(0) as u64, milliseconds.max(0) as u64);
        Status::NGX_OK.0
    })
}

/// Asks the client to come again, unless an earlier answer to the request does: an error page keeps that one's header.
///
/// # Safety
/// `r` is a request whose header was not sent.
pub(super) unsafe fn add_retry_after(r: *mut ngx_http_request_t) {
    const NAME: &[u8] = b"Retry-After";
    // SAFETY: the caller's promise.
    let headers = unsafe { &(*r).headers_out.headers };
    // SAFETY: nginx keeps headers in a list.
    if unsafe { list_iterator(headers) }.any(|(name, _)| name.as_bytes() == NAME) {
        return;
    }
    // SAFETY: the caller's promise.
    let _ = unsafe { add_header(r, NAME, RETRY_AFTER) };
}

/// Says how many seconds old the answer is (RFC 9111, section 5.1). Nothing of nginx's has said so before. `None` when memory
/// has run out.
///
/// # Safety
/// As for [`add_retry_after`].
pub(super) unsafe fn add_age(r: *mut ngx_http_request_t, seconds: u64) -> Option<()> {
    let text = seconds.to_string();
    // SAFETY: the caller passes a request that nginx is working on.
    let request_pool = unsafe { (*r).pool };
    // SAFETY: the request's pool lives as long as the request.
    let value = unsafe { pool::copy(request_pool, text.as_bytes()) }?;
    // SAFETY: the caller's promise; the value is in the request's pool.
    unsafe { add_header(r, b"Age", value) }.map(|_| ())
}

/// The time, in Unix seconds, as of when nginx last looked at the clock.
pub(super) fn unix_seconds() -> u64 {
    u64::try_from(ngx_timeofday().sec).unwrap_or(0)
}

/// Adds a line to the response's header. `None` when memory has run out.
///
/// # Safety
/// As for [`add_retry_after`]; the value lives as long as the request.
unsafe fn add_header(
    r: *mut ngx_http_request_t,
    name: &'static [u8],
    value: &'static [u8],
) -> Option<*mut ngx_table_elt_t> {
    // SAFETY: the caller's promise.
    let headers = unsafe { &raw mut (*r).headers_out.headers };
    // SAFETY: the list is the request's.
    let header = unsafe { ngx_list_push(headers) }.cast::<ngx_table_elt_t>();
    // SAFETY: fresh memory for one header, or null.
    let header = unsafe { header.as_mut() }?;
    // SAFETY: all-zero is how nginx makes these itself; every field that is read follows.
    *header = unsafe { std::mem::zeroed() };
    // SAFETY: the bytes are static.
    header.hash = unsafe { ngx_hash_key(name.as_ptr().cast_mut(), name.len()) }.max(1);
    header.key = pool::string(name);
    header.value = pool::string(value);
    Some(header)
}
