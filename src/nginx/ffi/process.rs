//! The kind of this process, and whether it is shutting down.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use nginx_sys::{
    NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER, SIG_SETMASK, SIGBUS, SIGFPE, SIGILL, SIGINT, SIGQUIT, SIGSEGV, SIGTERM,
    ngx_exiting, ngx_process, ngx_quit, ngx_terminate, ngx_test_config, ngx_worker, sigdelset, sigfillset, sigismember,
    sigpending, sigprocmask, sigset_t,
};

use super::cycle::Cycle;

/// Whether this is `nginx -t`, which must not use the network, write files or wait.
pub(in crate::nginx) fn is_test() -> bool {
    // SAFETY: nginx writes it before it reads the configuration.
    unsafe { ngx_test_config != 0 }
}

/// Whether this is the single process or worker 0.
pub(in crate::nginx) fn is_first_worker() -> bool {
    // SAFETY: nginx writes it before it calls the hooks of a process.
    let process = unsafe { ngx_process } as u32;
    // SAFETY: as for `ngx_process`.
    let worker = unsafe { ngx_worker };
    process == NGX_PROCESS_SINGLE || process == NGX_PROCESS_WORKER && worker == 0
}

/// Whether this is a worker or the single process.
pub(in crate::nginx) fn is_worker() -> bool {
    // SAFETY: nginx writes it before it calls the hooks of a process.
    matches!(unsafe { ngx_process } as u32, NGX_PROCESS_SINGLE | NGX_PROCESS_WORKER)
}

/// The number of this worker, from 0; 0 in a single process.
#[inline]
pub(in crate::nginx) fn number() -> usize {
    // SAFETY: nginx writes it before it calls the hooks of a process.
    unsafe { ngx_worker }
}

/// The number of workers, 1 for a single process.
pub(in crate::nginx) fn count(cycle: Cycle<'_>) -> Option<usize> {
    // SAFETY: nginx writes it before it calls the hooks of a process.
    let process = unsafe { ngx_process } as u32;
    if process == NGX_PROCESS_SINGLE { Some(1) } else { cycle.worker_processes() }
}

/// Whether the worker is draining: a new generation has taken over.
pub(in crate::nginx) fn is_exiting() -> bool {
    let flag = &raw mut ngx_exiting;
    // SAFETY: an aligned word that nginx writes in one store, valid as long as the process.
    unsafe { AtomicUsize::from_ptr(flag) }.load(Relaxed) != 0
}

/// Whether nginx is shutting down. In a single process that reloads, nginx's signal handlers set flags. A master blocks
/// signals during a reload, as does the master of a new binary, so pending signals are checked too. At the first start,
/// signals end the process directly.
pub(in crate::nginx) fn is_shutting_down() -> bool {
    let flags = [&raw mut ngx_quit, &raw mut ngx_terminate];
    // SAFETY: aligned words of nginx, valid as long as the process.
    let is_set = |flag: *mut _| unsafe { AtomicI32::from_ptr(flag) }.load(Relaxed) != 0;
    flags.into_iter().any(is_set) || is_shutdown_signal_pending()
}

/// Whether a signal that ends nginx is pending.
fn is_shutdown_signal_pending() -> bool {
    let mut pending = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a local set.
    if unsafe { sigpending(pending.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: `sigpending` has filled it.
    let is_member = |signal| unsafe { sigismember(pending.as_ptr(), signal) } == 1;
    [SIGTERM, SIGQUIT, SIGINT].into_iter().any(|signal| is_member(signal as i32))
}

/// Runs `f` with signals blocked. Threads started by `f` inherit the mask, so signals reach nginx's thread only.
pub(in crate::nginx) fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    let mut blocked = MaybeUninit::<sigset_t>::uninit();
    let mut before = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a local set.
    unsafe { sigfillset(blocked.as_mut_ptr()) };
    for fault in [SIGILL, SIGFPE, SIGSEGV, SIGBUS] {
        // SAFETY: `sigfillset` has filled it.
        unsafe { sigdelset(blocked.as_mut_ptr(), fault as i32) };
    }
    // SAFETY: two local sets; nginx has one thread here.
    unsafe { sigprocmask(SIG_SETMASK as i32, blocked.as_ptr(), before.as_mut_ptr()) };
    let result = f();
    // SAFETY: the first call has filled the set.
    unsafe { sigprocmask(SIG_SETMASK as i32, before.as_ptr(), std::ptr::null_mut()) };
    result
}
