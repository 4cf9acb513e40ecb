//! nginx's clock and timers.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nginx_sys::{ngx_add_timer, ngx_connection_t, ngx_current_msec, ngx_event_t};

use super::cycle::Cycle;
use super::panic_guard::catch_panic;

/// Milliseconds of nginx's monotonic clock, the same in all workers.
#[inline(always)]
pub(in crate::nginx) fn now_milliseconds() -> u64 {
    let now = &raw mut ngx_current_msec;
    // SAFETY: an aligned word that nginx writes in one store, valid as long as the process.
    unsafe { AtomicUsize::from_ptr(now.cast()) }.load(Relaxed) as u64
}

/// Unix seconds, from nginx's cached time.
pub(in crate::nginx) fn unix_seconds() -> u64 {
    u64::try_from(nginx_sys::ngx_timeofday().sec).unwrap_or(0)
}

/// A periodic task.
pub(in crate::nginx) trait Task {
    /// Milliseconds between two runs.
    const EVERY: usize;

    /// Runs the task, on nginx's own thread.
    fn run();
}

/// Starts a task. It does not keep an exiting worker alive.
pub(in crate::nginx) fn start<T: Task>(cycle: Cycle<'_>) {
    // Debug logging requires a connection for every event. Both live as long as the process.
    // SAFETY: nginx itself initializes these to zero.
    let connection = Box::leak(Box::new(unsafe { std::mem::zeroed::<ngx_connection_t>() }));
    // SAFETY: nginx itself initializes these to zero.
    let event = Box::leak(Box::new(unsafe { std::mem::zeroed::<ngx_event_t>() }));
    connection.fd = -1;
    event.data = (&raw mut *connection).cast::<c_void>();
    event.handler = Some(on_timer::<T>);
    // SAFETY: a cycle is valid for its handle's lifetime.
    event.log = unsafe { (*cycle.as_ptr()).log };
    event.set_cancelable(1);
    // SAFETY: an event that is never freed, on nginx's own thread.
    unsafe { ngx_add_timer(event, T::EVERY) };
}

unsafe extern "C" fn on_timer<T: Task>(event: *mut ngx_event_t) {
    catch_panic((), T::run);
    // The single process may have replaced the cycle that the event was made for.
    if let Some(cycle) = Cycle::running() {
        // SAFETY: a cycle is valid for its handle's lifetime.
        let log = unsafe { (*cycle.as_ptr()).log };
        // SAFETY: nginx passes the event of `start`, which is never freed.
        unsafe { (*event).log = log };
    }
    // SAFETY: the event of `start`.
    unsafe { ngx_add_timer(event, T::EVERY) };
}
