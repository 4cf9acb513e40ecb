//! nginx's error log. Used only on nginx's own thread.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use nginx_sys::{ngx_cycle, ngx_log_error_core, ngx_log_t, ngx_uint_t};

/// A log of nginx: of a connection, a cycle or the parser.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Log<'l> {
    raw: *mut ngx_log_t,
    life: PhantomData<&'l ngx_log_t>,
}

impl Log<'_> {
    /// # Safety
    /// `raw` is one of nginx's logs for `'l`, or null.
    pub(super) unsafe fn from_raw(raw: *mut ngx_log_t) -> Self {
        Self { raw, life: PhantomData }
    }

    /// Writes a line if the level is enabled.
    pub fn write(self, level: u32, text: &str) {
        // SAFETY: valid for the handle's lifetime.
        let open = unsafe { self.raw.as_ref() }.is_some_and(|log| log.log_level >= level as ngx_uint_t);
        if open {
            // SAFETY: valid for the handle's lifetime; the format takes a length and that many bytes.
            unsafe { ngx_log_error_core(level as ngx_uint_t, self.raw, 0, c"%*s".as_ptr(), text.len(), text.as_ptr()) };
        }
    }
}

/// Writes to the log of the current cycle.
pub(in crate::nginx) fn write_to_cycle(level: u32, text: &str) {
    // SAFETY: nginx writes it on this thread only.
    let running = unsafe { ngx_cycle };
    // SAFETY: nginx keeps the current cycle; null before the first one.
    if let Some(cycle) = unsafe { running.as_ref() } {
        Log { raw: cycle.log, life: PhantomData }.write(level, text);
    }
}
