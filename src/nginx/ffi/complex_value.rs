//! A configuration value that may contain variables.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use nginx_sys::ngx_http_complex_value_t;

use super::pool;

/// A value compiled by nginx. Its holder is part of the configuration and is dropped with it.
#[derive(PartialEq, Eq)]
pub(in crate::nginx) struct ComplexValue(NonNull<ngx_http_complex_value_t>);

impl ComplexValue {
    /// # Safety
    /// Nothing uses the value after its configuration is freed.
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_complex_value_t) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_http_complex_value_t {
        self.0.as_ptr()
    }

    /// The value as written, unevaluated.
    pub fn text(&self) -> &[u8] {
        // SAFETY: its configuration is alive (`from_raw`) and no longer written.
        let value = unsafe { self.0.as_ref() };
        // SAFETY: a string of the configuration.
        unsafe { pool::bytes(value.value) }
    }

    /// Whether the value contains variables.
    pub(super) fn has_variables(&self) -> bool {
        // SAFETY: as in `text`.
        let value = unsafe { self.0.as_ref() };
        !value.lengths.is_null()
    }
}
