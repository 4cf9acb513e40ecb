//! What nginx calls for a request.
#![allow(unsafe_code)]

use nginx_sys::{ngx_http_request_t, ngx_int_t};
use ngx::core::Status;

use super::guard::guarded;
use super::request::Request;

/// A handler of requests: of a phase, or of a location's content.
pub(in crate::nginx) trait Handler {
    /// What nginx gets when the handler panics.
    const ON_PANIC: Status = Status::NGX_ERROR;

    /// Handles a request.
    fn handle(request: Request<'_>) -> Status;
}

/// What nginx calls for a request.
pub(in crate::nginx) unsafe extern "C" fn handler<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request that it works on, and works on it during the call.
    guarded(H::ON_PANIC, || H::handle(unsafe { Request::from_raw(r) })).0
}
