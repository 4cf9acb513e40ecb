//! `$urlproxy_tool`, `$urlproxy_backend`, `$urlproxy_scheme`, `$urlproxy_pattern`, `$urlproxy_result`.

use std::io::Write;

use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t, ngx_http_variable_value_t,
    ngx_int_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;
use ngx::ngx_string;

use super::guard::guarded;
use super::pool;
use super::request::{Endpoint, Outcome, RequestRoute, resolve};

/// Longest URL of a backend: `https://`, a name, a port.
const URL_BYTES: usize = 8 + 253 + 6;

/// What a variable reads from a request's route; `None` is an empty variable.
type Read = fn(&RequestRoute, *mut ngx_http_request_t) -> Option<&'static [u8]>;

const VARIABLES: [(ngx_str_t, Read); 5] = [
    (ngx_string!("urlproxy_tool"), |route, _| Some(route.tool)),
    (ngx_string!("urlproxy_backend"), |route, r| url(route.endpoint()?, r)),
    (ngx_string!("urlproxy_scheme"), |route, _| Some(route.endpoint()?.scheme.as_str().as_bytes())),
    (ngx_string!("urlproxy_pattern"), |route, _| Some(route.pattern)),
    (ngx_string!("urlproxy_result"), |route, _| {
        Some(match route.outcome {
            Outcome::Route => b"route",
            Outcome::Default => b"default",
            Outcome::Miss => b"miss",
            Outcome::Unready => b"unready",
        })
    }),
];

/// Makes the variables known.
///
/// # Safety
/// `cf` is nginx's parser, before it reads the http block.
pub(super) unsafe fn add(cf: *mut ngx_conf_t) -> Option<()> {
    for (number, (name, _)) in VARIABLES.iter().enumerate() {
        let mut name = *name;
        // SAFETY: the caller's promise; the name's bytes are static.
        let variable = unsafe { ngx_http_add_variable(cf, &raw mut name, NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t) };
        // SAFETY: nginx's own table of variables.
        let variable = unsafe { variable.as_mut() }?;
        variable.get_handler = Some(get);
        variable.data = number;
    }
    Some(())
}

unsafe extern "C" fn get(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    number: usize,
) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the request it is working on.
        let route = unsafe { resolve(r) };
        let read = VARIABLES.get(number).and_then(|(_, read)| read(route?, r));
        // SAFETY: nginx passes the value to fill in.
        let value = unsafe { &mut *value };
        value.set_no_cacheable(0);
        value.set_escape(0);
        match read {
            Some(bytes) => {
                value.set_valid(1);
                value.set_not_found(0);
                value.set_len(bytes.len() as u32);
                value.data = bytes.as_ptr().cast_mut();
            }
            None => {
                value.set_valid(0);
                value.set_not_found(1);
            }
        }
        Status::NGX_OK.0
    })
}

fn url(endpoint: &Endpoint, r: *mut ngx_http_request_t) -> Option<&'static [u8]> {
    let mut text = [0; URL_BYTES];
    let mut rest = &mut text[..];
    write!(rest, "{endpoint}").ok()?;
    let written = URL_BYTES - rest.len();
    // SAFETY: the request nginx is working on, and its pool.
    unsafe { pool::copy((*r).pool, text.get(..written)?) }
}
