//! Stops panics at the boundary to nginx, where they would abort the worker.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::log;

/// Runs an entry point. Logs a panic and returns `on_panic` instead.
pub(super) fn catch_panic<T>(on_panic: T, f: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        log::write_to_cycle(
            nginx_sys::NGX_LOG_ALERT,
            &format!("urlproxy: panic caught; the current operation fails, panic=\"{text}\""),
        );
        on_panic
    })
}
