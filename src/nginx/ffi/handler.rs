//! Request handlers: the trait, and the function that nginx calls.
#![allow(unsafe_code)]

use nginx_sys::{ngx_http_finalize_request, ngx_http_request_t, ngx_int_t};
use ngx::core::Status;

use super::panic_guard::catch_panic;
use super::request::Request;

/// The result of a handler, in one word: a status for nginx, or, from [`FINALIZE`] on, a status for the client.
pub(in crate::nginx) struct HandlerStatus(ngx_int_t);

/// Greater than any status.
const FINALIZE: ngx_int_t = 1 << 16;

impl HandlerStatus {
    /// Ends the request with this status. A status returned to nginx would, with `satisfy any`, be only one of several
    /// opinions.
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

/// A phase handler or content handler.
pub(in crate::nginx) trait Handler {
    /// The status for nginx if the handler panics.
    const ON_PANIC: Status = Status::NGX_ERROR;

    /// Handles a request.
    fn handle(request: Request<'_>) -> HandlerStatus;
}

pub(super) unsafe extern "C" fn handler<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the current request and processes it during the call.
    let HandlerStatus(status) = catch_panic(H::ON_PANIC.into(), || H::handle(unsafe { Request::from_raw(r) }));
    if status < FINALIZE {
        return status;
    }
    // SAFETY: nginx's request, and no handle of this module to it is left.
    unsafe { ngx_http_finalize_request(r, status - FINALIZE) };
    Status::NGX_DONE.0
}
