//! What nginx calls for a request.
#![allow(unsafe_code)]

use nginx_sys::{ngx_http_finalize_request, ngx_http_request_t, ngx_int_t};
use ngx::core::Status;

use super::panic_guard::catch_panic;
use super::request::Request;

/// What a handler makes of a request. One word: a status for nginx, or, from [`FINALIZE`] on, one for the client.
pub(in crate::nginx) struct HandlerStatus(ngx_int_t);

/// Above all statuses.
const FINALIZE: ngx_int_t = 1 << 16;

impl HandlerStatus {
    /// The client gets this status, whatever others would say. A status for nginx is, with `satisfy any`, one opinion among
    /// several.
    pub fn finalize(status: u32) -> Self {
        Self(FINALIZE + status as ngx_int_t)
    }
}

impl From<Status> for HandlerStatus {
    #[inline(always)]
    fn from(status: Status) -> Self {
        Self(status.0)
    }
}

/// A handler of a phase, or of a location's content.
pub(in crate::nginx) trait Handler {
    /// What nginx gets when the handler panics.
    const ON_PANIC: Status = Status::NGX_ERROR;

    /// Handles a request.
    fn handle(request: Request<'_>) -> HandlerStatus;
}

pub(super) unsafe extern "C" fn handler<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request that it works on, and works on it during the call.
    let HandlerStatus(status) = catch_panic(H::ON_PANIC.into(), || H::handle(unsafe { Request::from_raw(r) }));
    if status < FINALIZE {
        return status;
    }
    // SAFETY: the request is nginx's, and this module has no handle of it any more.
    unsafe { ngx_http_finalize_request(r, status - FINALIZE) };
    Status::NGX_DONE.0
}
