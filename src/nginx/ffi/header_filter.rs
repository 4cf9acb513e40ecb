//! The filter of response headers: the trait, and the function that nginx calls.
#![allow(unsafe_code)]

use nginx_sys::{
    NGX_HTTP_BAD_GATEWAY, ngx_http_clean_header, ngx_http_output_header_filter_pt, ngx_http_request_t,
    ngx_http_top_header_filter, ngx_int_t,
};
use ngx::core::Status;

use super::panic_guard::catch_panic;
use super::parser::Parser;
use super::request::Request;

/// The next filter of the chain. Written while a configuration is read, on the one thread that also runs the filters.
static mut NEXT: ngx_http_output_header_filter_pt = None;

/// Decides about each response before its header is written. There is one filter, since there is one [`NEXT`].
pub(in crate::nginx) trait HeaderFilter {
    /// Whether the response passes. Otherwise it is answered with 502 instead.
    fn accepts(request: Request<'_>) -> bool;
}

impl Parser<'_> {
    /// Installs the header filter. nginx builds a new chain for each configuration; a module without a place in nginx's order,
    /// such as this one, comes before nginx's own filters.
    pub fn add_header_filter<F: HeaderFilter>(&mut self) {
        // SAFETY: nginx changes the chain on this thread only.
        let top = unsafe { ngx_http_top_header_filter };
        // SAFETY: read and written on nginx's thread only.
        unsafe { NEXT = top };
        // SAFETY: as for reading it.
        unsafe { ngx_http_top_header_filter = Some(filter::<F>) };
    }
}

unsafe extern "C" fn filter<F: HeaderFilter>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the current request and processes it during the call.
    if catch_panic(false, || F::accepts(unsafe { Request::from_raw(r) })) {
        // SAFETY: written before any request of this configuration.
        let next = unsafe { NEXT };
        // SAFETY: nginx's filter, for nginx's request.
        return next.map_or(Status::NGX_ERROR.0, |next| unsafe { next(r) });
    }
    // An error page keeps the headers that are set.
    // SAFETY: nginx's request, and no handle of this module to it is left.
    unsafe { ngx_http_clean_header(r) };
    // The caller ends the request with this status, as for other errors before the header is sent.
    NGX_HTTP_BAD_GATEWAY as ngx_int_t
}
