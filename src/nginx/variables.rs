//! `$urlproxy_tool`, `$urlproxy_domain`, `$urlproxy_backend`, `$urlproxy_scheme`, `$urlproxy_pattern`, `$urlproxy_result`.

use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t, ngx_http_variable_value_t,
    ngx_int_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;
use ngx::ngx_string;

use super::endpoint::Endpoint;
use super::guard::guarded;
use super::pool;
use super::request::{Outcome, RequestRoute, shown};

/// The bit fields of a value: `len 28 | valid 1 | no_cacheable 1 | not_found 1 | escape 1`, from the lowest bit.
const LENGTH: u32 = (1 << 28) - 1;
const VALID: u32 = 1 << 28;
const NOT_FOUND: u32 = 1 << 30;
const _: () = assert!(cfg!(target_endian = "little"));

/// What a variable reads from a request's route; `None` is an empty variable.
type Read = fn(&RequestRoute, *mut ngx_http_request_t) -> Option<&'static [u8]>;

const VARIABLES: [(ngx_str_t, Read); 6] = [
    (ngx_string!("urlproxy_tool"), |route, _| harmless(route.tool)),
    (ngx_string!("urlproxy_domain"), |route, _| harmless(route.domain)),
    (ngx_string!("urlproxy_backend"), |route, r| url(endpoint(route, r)?, r)),
    (ngx_string!("urlproxy_scheme"), |route, r| Some(endpoint(route, r)?.scheme.as_str().as_bytes())),
    (ngx_string!("urlproxy_pattern"), |route, _| harmless(route.pattern)),
    (ngx_string!("urlproxy_result"), |route, _| {
        Some(match route.outcome {
            Outcome::Route => b"route",
            Outcome::Default => b"default",
            Outcome::Redirect => b"redirect",
            Outcome::Miss | Outcome::NoHost => b"miss",
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
        let route = unsafe { shown(r) };
        let read = VARIABLES.get(number).and_then(|(_, read)| read(route?, r));
        let (flags, data) = match read {
            Some(bytes) => (VALID | bytes.len() as u32 & LENGTH, bytes.as_ptr().cast_mut()),
            None => (NOT_FOUND, std::ptr::null_mut()),
        };
        // The generated setters go bit by bit, twenty-eight for the length alone.
        // SAFETY: nginx passes the value to fill in.
        let value = unsafe { &mut *value };
        // SAFETY: its bit fields are one word.
        unsafe { (&raw mut value._bitfield_1).cast::<u32>().write(flags) };
        value.data = data;
        Status::NGX_OK.0
    })
}

/// A text that cannot end a header line or a log line, whoever wrote it.
fn harmless(text: &'static [u8]) -> Option<&'static [u8]> {
    Some(text).filter(|text| !text.iter().any(u8::is_ascii_control))
}

fn endpoint(route: &RequestRoute, r: *mut ngx_http_request_t) -> Option<&Endpoint> {
    // SAFETY: `get` has the route from this request.
    unsafe { route.endpoint(r) }
}

fn url(endpoint: &Endpoint, r: *mut ngx_http_request_t) -> Option<&'static [u8]> {
    // SAFETY: the request nginx is working on.
    let pool = unsafe { (*r).pool };
    // SAFETY: the request's pool.
    unsafe { pool::copy(pool, endpoint.to_string().as_bytes()) }
}
