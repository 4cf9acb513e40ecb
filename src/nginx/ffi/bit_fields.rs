//! Proves at compile time that the bindings have nginx's bit fields where C has them.
//!
//! bindgen before 0.73 counts from the first bit of a group of bit fields when it looks whether a bit field would cross a boundary of
//! its type. C counts from the start of the structure. Both agree if the group starts at such a boundary.

use std::ffi::c_uint;
use std::mem::offset_of;

use nginx_sys::{
    ngx_buf_t, ngx_connection_t, ngx_event_t, ngx_http_request_t, ngx_http_upstream_t, ngx_peer_connection_t,
};

macro_rules! assert_bit_fields {
    ($($structure:ty),+) => {$(
        const _: () = assert!(
            offset_of!($structure, _bitfield_1).is_multiple_of(size_of::<c_uint>()),
            "bindgen misplaces these bit fields: configure nginx's headers with .ci/setup, which works around that"
        );
    )+};
}

assert_bit_fields!(
    ngx_buf_t,
    ngx_connection_t,
    ngx_event_t,
    ngx_http_request_t,
    ngx_http_upstream_t,
    ngx_peer_connection_t
);
