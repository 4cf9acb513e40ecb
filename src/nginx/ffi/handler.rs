//! What nginx calls for a request.
#![allow(unsafe_code)]

use nginx_sys::{ngx_http_finalize_request, ngx_http_request_t, ngx_int_t};
use ngx::core::Status;

use super::guard::guarded;
use super::request::Request;

/// What a handler makes of a request.
pub(in crate::nginx) enum Outcome {
    /// nginx gets this status; with `satisfy any` it is one opinion among several.
    Return(Status),
    /// The client gets this status, whatever others would say.
    Finalize(u32),
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Self::Return(status)
    }
}

/// A handler of a phase, or of a location's content.
pub(in crate::nginx) trait Handler {
    /// What nginx gets when the handler panics.
    const ON_PANIC: Status = Status::NGX_ERROR;

    /// Handles a request.
    fn handle(request: Request<'_>) -> Outcome;
}

pub(super) unsafe extern "C" fn handler<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request that it works on, and works on it during the call.
    let outcome = guarded(Outcome::Return(H::ON_PANIC), || H::handle(unsafe { Request::from_raw(r) }));
    match outcome {
        Outcome::Return(status) => status.0,
        Outcome::Finalize(status) => {
            // SAFETY: the request is nginx's, and this module has no handle of it any more.
            unsafe { ngx_http_finalize_request(r, status as ngx_int_t) };
            Status::NGX_DONE.0
        }
    }
}
