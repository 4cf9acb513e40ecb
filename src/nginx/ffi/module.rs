//! This module as nginx sees it: settings types and module indices.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use nginx_sys::{ngx_conf_t, ngx_module_t, ngx_uint_t};
use ngx::http::{HttpModule, HttpModuleLocationConf, HttpModuleMainConf};

use super::panic_guard::catch_panic;

/// This module. Traits of this folder, implemented for it exactly once, name the types that nginx stores for the module.
pub(in crate::nginx) struct Module;

/// The types of this module's settings.
pub(in crate::nginx) trait Configuration {
    /// Settings of the http block.
    type Main: Default + 'static;
    /// Settings of a location and of each level above.
    type Location: Default + 'static;
}

/// Settings of the http block.
pub(in crate::nginx) type MainConf = <Module as Configuration>::Main;
/// Settings of a location.
pub(in crate::nginx) type LocationConf = <Module as Configuration>::Location;

/// Gives access to the static that nginx loads.
pub(in crate::nginx) trait ModuleStatic {
    /// The static, for the life of the process.
    fn as_ptr() -> *mut ngx_module_t;
}

/// `NGX_MODULE_UNSET_INDEX`: nginx assigns an index when it finds this, and keeps any other.
const UNSET: ngx_uint_t = ngx_uint_t::MAX;

/// The loaded static; set before any settings of this module exist.
static LOADED: AtomicPtr<ngx_module_t> = AtomicPtr::new(ptr::null_mut());

/// Its `ctx_index`, while any configuration has the module.
static CTX_INDEX: AtomicUsize = AtomicUsize::new(UNSET);

/// Number of configurations with the module: the current one, the next while it is read, the old one until it is freed.
static CONFIGURATIONS: AtomicUsize = AtomicUsize::new(0);

impl Module {
    /// The tag of this module's shared zones; nginx only compares it.
    pub(super) fn tag() -> *mut c_void {
        LOADED.load(Relaxed).cast()
    }

    /// The index of this module's settings at each level, and of its context in each request.
    #[inline(always)]
    pub(super) fn ctx_index() -> usize {
        CTX_INDEX.load(Relaxed)
    }
}

impl HttpModule for Module {
    #[inline(always)]
    fn module() -> &'static ngx_module_t {
        let module = LOADED.load(Relaxed);
        // SAFETY: set by `create_main_conf` before any other use. It is a static; nginx writes the indices before that, and
        // not while this module's code runs.
        unsafe { &*module }
    }
}

// SAFETY: `create_main_conf` makes this type, and nothing else does.
unsafe impl HttpModuleMainConf for Module {
    type MainConf = MainConf;
}

// SAFETY: `create_loc_conf` makes this type, and nothing else does.
unsafe impl HttpModuleLocationConf for Module {
    type LocationConf = LocationConf;
}

/// Creates the settings of the http block; nginx calls this first.
pub(in crate::nginx) unsafe extern "C" fn create_main_conf<S: ModuleStatic>(cf: *mut ngx_conf_t) -> *mut c_void {
    catch_panic(ptr::null_mut(), || {
        LOADED.store(S::as_ptr(), Relaxed);
        CTX_INDEX.store(Module::module().ctx_index, Relaxed);
        // SAFETY: nginx passes its parser.
        unsafe { Module::create_main_conf(cf) }
    })
}

/// Creates the settings of a location or a level above.
pub(in crate::nginx) unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes its parser.
    catch_panic(ptr::null_mut(), || unsafe { Module::create_loc_conf(cf) })
}

/// One configuration's use of the module indices. Dropped with the configuration's pool, also after a refused reload.
///
/// The image stays mapped after `dlclose` (`-z nodelete`), with its indices set. A reload without the module gives the same
/// indices to other modules; if the module is then loaded again, two modules would share one slot. `ctx_index` is set just
/// before nginx creates this value, so it never stays set. A reload refused before that may leave `index` set, which is
/// harmless: nginx reads `index` of core modules only.
pub(in crate::nginx) struct IndicesInUse(());

impl Default for IndicesInUse {
    fn default() -> Self {
        CONFIGURATIONS.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for IndicesInUse {
    fn drop(&mut self) {
        if CONFIGURATIONS.fetch_sub(1, Relaxed) > 1 {
            return;
        }
        // SAFETY: nginx frees configurations on its one thread, and no configuration has the module any more: the next to
        // read the indices is `load_module`.
        if let Some(module) = unsafe { LOADED.load(Relaxed).as_mut() } {
            module.index = UNSET;
            module.ctx_index = UNSET;
        }
    }
}
