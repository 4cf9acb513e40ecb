//! A cycle: one configuration of nginx, with its sockets and log.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ptr::NonNull;

use nginx_sys::{ngx_core_conf_t, ngx_core_module, ngx_cycle, ngx_cycle_t, ngx_listening_t, ngx_module_t};
use ngx::http::HttpModuleMainConf;

use super::log::Log;
use super::module::{MainConf, Module};
use super::sockaddr::parse_sockaddr;

/// A cycle that nginx runs, or is about to run.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Cycle<'c> {
    raw: NonNull<ngx_cycle_t>,
    life: PhantomData<&'c ngx_cycle_t>,
}

impl<'c> Cycle<'c> {
    /// # Safety
    /// `raw` is null, or one of nginx's cycles for `'c`.
    pub(super) unsafe fn from_raw(raw: *mut ngx_cycle_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, life: PhantomData })
    }

    /// The current cycle; `None` before nginx has read its first configuration.
    pub fn running() -> Option<Self> {
        // SAFETY: nginx writes it on this thread only.
        let raw = unsafe { ngx_cycle };
        // SAFETY: nginx keeps the current cycle, and this handle is used on nginx's thread before the cycle changes.
        unsafe { Self::from_raw(raw) }
    }

    pub(super) fn as_ptr(self) -> *mut ngx_cycle_t {
        self.raw.as_ptr()
    }

    fn as_ref(self) -> &'c ngx_cycle_t {
        // SAFETY: valid for the handle's lifetime; nginx does not change the fields read here while this module's code runs.
        unsafe { self.raw.as_ref() }
    }

    /// The previous cycle, while this one is being read.
    pub(super) fn old_cycle(self) -> *mut ngx_cycle_t {
        self.as_ref().old_cycle
    }

    /// The log of the cycle.
    pub fn log(self) -> Log<'c> {
        // SAFETY: a cycle has a log for its whole life.
        unsafe { Log::from_raw(self.as_ref().log) }
    }

    /// This module's settings of the http block, if the cycle has this module.
    pub fn main_conf(self) -> Option<&'c MainConf> {
        let cycle = self.as_ref();
        if cycle.conf_ctx.is_null() || cycle.modules.is_null() {
            return None;
        }
        // A cycle from before `load_module` has no settings of this module.
        let ours: *const ngx_module_t = Module::tag().cast();
        if self.modules().any(|module| std::ptr::eq(module, ours)) { Module::main_conf(cycle) } else { None }
    }

    /// The modules of the cycle.
    pub(super) fn modules(self) -> impl Iterator<Item = &'c ngx_module_t> {
        let cycle = self.as_ref();
        // SAFETY: `modules_n` is the length of the array.
        let modules = unsafe { std::slice::from_raw_parts(cycle.modules, cycle.modules_n) };
        // SAFETY: a cycle keeps its modules loaded.
        modules.iter().filter_map(|module| unsafe { module.as_ref() })
    }

    /// The module of this name.
    pub(super) fn module(self, name: &CStr) -> Option<&'c ngx_module_t> {
        self.modules().find(|module| module_name(module) == name)
    }

    /// `worker_connections`.
    pub fn worker_connections(self) -> usize {
        self.as_ref().connection_n
    }

    /// The addresses of the listening sockets.
    pub fn listen_addresses(self) -> Vec<SocketAddr> {
        // SAFETY: the cycle's listening sockets are an array of this type.
        let sockets = unsafe { self.as_ref().listening.as_slice::<ngx_listening_t>() };
        let address = |socket: &ngx_listening_t| {
            // SAFETY: nginx keeps an address of this length with each of its sockets.
            let raw = unsafe { std::slice::from_raw_parts(socket.sockaddr.cast::<u8>(), socket.socklen as usize) };
            parse_sockaddr(raw)
        };
        sockets.iter().filter_map(address).collect()
    }

    /// The uid of the workers, if it can differ from the master's: only a master that runs as root changes it.
    pub fn worker_uid(self) -> Option<u32> {
        let is_root = rustix::process::geteuid().is_root();
        self.core_conf().map(|conf| conf.user).filter(|_| is_root)
    }

    /// `worker_processes`: the number of workers, unless there is no master.
    pub fn worker_processes(self) -> Option<usize> {
        self.core_conf().and_then(|conf| usize::try_from(conf.worker_processes).ok())
    }

    /// The settings of nginx's core module.
    fn core_conf(self) -> Option<&'c ngx_core_conf_t> {
        let module = &raw const ngx_core_module;
        // SAFETY: nginx assigns module indices before it creates a cycle.
        let index = unsafe { (*module).index };
        // SAFETY: a cycle has settings of each core module at its index.
        let slot = unsafe { *self.as_ref().conf_ctx.wrapping_add(index) };
        // SAFETY: the core module's settings have this type and live as long as the cycle.
        unsafe { slot.cast::<ngx_core_conf_t>().as_ref() }
    }
}

/// The name of a module.
pub(super) fn module_name(module: &ngx_module_t) -> &CStr {
    // SAFETY: nginx names each loaded module with a C string.
    unsafe { CStr::from_ptr(module.name) }
}
