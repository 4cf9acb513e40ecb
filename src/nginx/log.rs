//! Lines for nginx's error log. Only from nginx's own thread.

use nginx_sys::{ngx_cycle, ngx_log_error_core, ngx_log_t, ngx_uint_t};

use crate::sync::Level;

/// nginx's number for a level.
pub(super) fn number(level: Level) -> u32 {
    match level {
        Level::Error => nginx_sys::NGX_LOG_ERR,
        Level::Warn => nginx_sys::NGX_LOG_WARN,
        Level::Notice => nginx_sys::NGX_LOG_NOTICE,
        Level::Info => nginx_sys::NGX_LOG_INFO,
    }
}

/// Writes to the log of the running cycle.
pub(super) fn cycle(level: u32, text: &str) {
    // SAFETY: written by nginx on this thread only.
    let running = unsafe { ngx_cycle };
    // SAFETY: nginx has a cycle from before it loads modules until it exits.
    let log = unsafe { running.as_ref() }.map(|cycle| cycle.log);
    if let Some(log) = log {
        // SAFETY: the cycle's log lives as long as the cycle.
        unsafe { write(log, level, text) };
    }
}

/// Writes to a log, if its level lets the line through.
///
/// # Safety
/// `log` is one of nginx's logs, of something that is still there.
pub(super) unsafe fn write(log: *mut ngx_log_t, level: u32, text: &str) {
    // SAFETY: the caller's promise.
    let open = unsafe { log.as_ref() }.is_some_and(|log| log.log_level >= level as ngx_uint_t);
    if open {
        // SAFETY: the format takes a length and that many bytes.
        unsafe { ngx_log_error_core(level as ngx_uint_t, log, 0, c"%*s".as_ptr(), text.len(), text.as_ptr()) };
    }
}
