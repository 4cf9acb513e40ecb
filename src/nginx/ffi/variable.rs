//! Variables of this module.
#![allow(unsafe_code)]

use std::ptr;

use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_http_add_variable, ngx_http_request_t, ngx_http_variable_value_t, ngx_int_t,
    ngx_uint_t,
};
use ngx::core::Status;

use super::panic_guard::catch_panic;
use super::parser::Parser;
use super::pool;
use super::request::Request;

/// A variable.
pub(in crate::nginx) struct Variable {
    /// Name without the dollar sign.
    pub name: &'static str,
    /// Returns the value for a request; `None` makes the variable empty.
    pub read: for<'r> fn(Request<'r>) -> Option<&'r [u8]>,
}

/// The bit fields of a value: `len 28 | valid 1 | no_cacheable 1 | not_found 1 | escape 1`, from the lowest bit.
const LENGTH: u32 = (1 << 28) - 1;
const VALID: u32 = 1 << 28;
const NOT_FOUND: u32 = 1 << 30;
const _: () = assert!(cfg!(target_endian = "little"));

impl Parser<'_> {
    /// Registers a variable. `None` if nginx refuses it, which nginx logs.
    pub fn add_variable(&mut self, variable: &'static Variable) -> Option<()> {
        let mut name = pool::string(variable.name.as_bytes());
        let flags = NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t;
        // SAFETY: nginx's parser before it reads the http block; the name's bytes are static.
        let added = unsafe { ngx_http_add_variable(self.as_ptr(), &raw mut name, flags) };
        // SAFETY: in nginx's table of variables, alive as long as the configuration.
        let added = unsafe { added.as_mut() }?;
        added.get_handler = Some(get);
        added.data = ptr::from_ref(variable).expose_provenance();
        Some(())
    }
}

unsafe extern "C" fn get(r: *mut ngx_http_request_t, value: *mut ngx_http_variable_value_t, data: usize) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: set by `add_variable`; it is a static.
        let variable: &Variable = unsafe { &*ptr::with_exposed_provenance(data) };
        // SAFETY: nginx passes the current request.
        let (flags, data) = match (variable.read)(unsafe { Request::from_raw(r) }) {
            Some(bytes) => (VALID | bytes.len() as u32 & LENGTH, bytes.as_ptr().cast_mut()),
            None => (NOT_FOUND, ptr::null_mut()),
        };
        // SAFETY: nginx passes the value to fill in.
        let value = unsafe { &mut *value };
        // One store: the generated setters write bit by bit.
        // SAFETY: the bit fields are one word.
        unsafe { (&raw mut value._bitfield_1).cast::<u32>().write(flags) };
        value.data = data;
        Status::NGX_OK
    })
    .0
}
