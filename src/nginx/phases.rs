//! What the module does in nginx's phases: refuse what nobody answers, count what was answered.

use nginx_sys::{
    NGX_HTTP_BAD_REQUEST, NGX_HTTP_SERVICE_UNAVAILABLE, NGX_HTTP_TEMPORARY_REDIRECT, ngx_hash_key,
    ngx_http_finalize_request, ngx_http_request_t, ngx_int_t, ngx_list_push, ngx_table_elt_t, ngx_timeofday,
};
use ngx::core::Status;
use ngx::http::HttpModuleLocationConf;

use super::guard::guarded;
use super::location_conf::LocationConf;
use super::loop_mark;
use super::module::Module;
use super::pool;
use super::request::{Outcome, resolve, stored};
use crate::route::{Moved, PathRequest, split_path};
use crate::table::StatusClass;

/// Seconds a client is told to wait for the first load.
const RETRY_AFTER: &[u8] = b"1";

/// Access phase: lets a request through when somebody answers it.
pub(super) unsafe extern "C" fn access(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the request it is working on.
        let request = unsafe { &*r };
        let Some(conf) = Module::location_conf(request).filter(|conf| conf.table().is_some()) else {
            return Status::NGX_DECLINED.0;
        };
        // SAFETY: as above.
        let route = unsafe { resolve(r) };
        match route.map(|route| route.outcome) {
            Some(Outcome::Route | Outcome::Default) => {
                // SAFETY: as above.
                route.map_or(Status::NGX_DECLINED.0, |route| unsafe { loop_mark::pass(r, route, conf) })
            }
            // SAFETY: as above.
            Some(Outcome::Redirect) => match unsafe { add_location(r, conf) } {
                // SAFETY: as above.
                Some(()) => unsafe { end(r, NGX_HTTP_TEMPORARY_REDIRECT) },
                None => Status::NGX_ERROR.0,
            },
            // SAFETY: as above.
            Some(Outcome::Miss) => unsafe { end(r, conf.miss_status().into()) },
            // SAFETY: as above.
            Some(Outcome::NoHost) => unsafe { end(r, NGX_HTTP_BAD_REQUEST) },
            Some(Outcome::Unready) => {
                // SAFETY: as above.
                unsafe { add_retry_after(r) };
                NGX_HTTP_SERVICE_UNAVAILABLE as ngx_int_t
            }
            None => Status::NGX_ERROR.0,
        }
    })
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

/// # Safety
/// `r` is a request whose header was not sent.
pub(super) unsafe fn add_retry_after(r: *mut ngx_http_request_t) {
    // SAFETY: the caller's promise.
    let _ = unsafe { add_header(r, b"Retry-After", RETRY_AFTER) };
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
