//! A text of the configuration with variables in it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use nginx_sys::ngx_http_complex_value_t;

use super::pool;

/// A text that nginx has compiled. What holds it is a part of the configuration, and goes with it.
#[derive(PartialEq, Eq)]
pub(in crate::nginx) struct ComplexValue(NonNull<ngx_http_complex_value_t>);

impl ComplexValue {
    /// # Safety
    /// Nothing uses the value after the configuration that it was compiled for.
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_complex_value_t) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_http_complex_value_t {
        self.0.as_ptr()
    }

    /// The text as it was written.
    pub fn text(&self) -> &[u8] {
        // SAFETY: of a configuration that is there (`from_raw`), and no longer written.
        let value = unsafe { self.0.as_ref() };
        // SAFETY: the configuration's own string.
        unsafe { pool::bytes(value.value) }
    }

    /// Whether there are variables in it.
    pub(super) fn has_variables(&self) -> bool {
        // SAFETY: as in `text`.
        let value = unsafe { self.0.as_ref() };
        !value.lengths.is_null()
    }
}
