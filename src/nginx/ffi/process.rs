//! What kind of process this is, and whether it is to end.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use nginx_sys::{
    NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER, SIG_SETMASK, SIGBUS, SIGFPE, SIGILL, SIGINT, SIGQUIT, SIGSEGV, SIGTERM,
    ngx_exiting, ngx_process, ngx_quit, ngx_terminate, ngx_test_config, ngx_worker, sigdelset, sigfillset, sigismember,
    sigpending, sigprocmask, sigset_t,
};

/// Whether this is `nginx -t`: no network, nothing written, nothing that waits.
pub(in crate::nginx) fn is_test() -> bool {
    // SAFETY: nginx writes it before it reads the configuration.
    unsafe { ngx_test_config != 0 }
}

/// Whether this is the single process, or the first of the workers.
pub(in crate::nginx) fn is_first_worker() -> bool {
    // SAFETY: nginx writes it before it calls a process's hooks.
    let process = unsafe { ngx_process } as u32;
    // SAFETY: as for `ngx_process`.
    let worker = unsafe { ngx_worker };
    process == NGX_PROCESS_SINGLE || process == NGX_PROCESS_WORKER && worker == 0
}

/// Whether the worker drains: another generation has taken over.
pub(in crate::nginx) fn is_exiting() -> bool {
    let flag = &raw mut ngx_exiting;
    // SAFETY: an aligned word that nginx writes in one store, and that is there as long as the process.
    unsafe { AtomicUsize::from_ptr(flag) }.load(Relaxed) != 0
}

/// Whether nginx is to end. Its handlers set the flags when a single process loads a new configuration. The master blocks
/// signals while it does, and so does a new binary's; at the first start they end the process by themselves.
pub(in crate::nginx) fn is_shutting_down() -> bool {
    let flags = [&raw mut ngx_quit, &raw mut ngx_terminate];
    // SAFETY: aligned words of nginx's that are there as long as the process.
    let is_set = |flag: *mut _| unsafe { AtomicI32::from_ptr(flag) }.load(Relaxed) != 0;
    flags.into_iter().any(is_set) || is_shutdown_signal_pending()
}

/// Whether a signal that ends nginx waits to be delivered.
fn is_shutdown_signal_pending() -> bool {
    let mut pending = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a set of this function's own.
    if unsafe { sigpending(pending.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: `sigpending` has filled it.
    let is_member = |signal| unsafe { sigismember(pending.as_ptr(), signal) } == 1;
    [SIGTERM, SIGQUIT, SIGINT].into_iter().any(|signal| is_member(signal as i32))
}

/// Runs `f` with nginx's signals blocked. Threads started meanwhile inherit the mask: the signals must reach nginx's thread.
pub(in crate::nginx) fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    let mut blocked = MaybeUninit::<sigset_t>::uninit();
    let mut before = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a set of this function's own.
    unsafe { sigfillset(blocked.as_mut_ptr()) };
    for fault in [SIGILL, SIGFPE, SIGSEGV, SIGBUS] {
        // SAFETY: `sigfillset` has filled it.
        unsafe { sigdelset(blocked.as_mut_ptr(), fault as i32) };
    }
    // SAFETY: two sets of this function's own; nginx has one thread here.
    unsafe { sigprocmask(SIG_SETMASK as i32, blocked.as_ptr(), before.as_mut_ptr()) };
    let result = f();
    // SAFETY: the first call has filled the set.
    unsafe { sigprocmask(SIG_SETMASK as i32, before.as_ptr(), std::ptr::null_mut()) };
    result
}
