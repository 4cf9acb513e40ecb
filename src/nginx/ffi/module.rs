//! This module among nginx's modules: the types of its configuration, and its indices.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use nginx_sys::{ngx_conf_t, ngx_module_t, ngx_uint_t};
use ngx::http::{HttpModule, HttpModuleLocationConf, HttpModuleMainConf};

use super::panic_guard::catch_panic;

/// This module. The traits of this folder that are implemented for it say which types of this module's nginx keeps; no
/// second implementation can say otherwise.
pub(in crate::nginx) struct Module;

/// The types of this module's configuration.
pub(in crate::nginx) trait Configuration {
    /// Of the http block.
    type Main: Default + 'static;
    /// Of a location, and of each level above.
    type Location: Default + 'static;
}

/// What this module keeps for the http block.
pub(in crate::nginx) type MainConf = <Module as Configuration>::Main;
/// What this module keeps for a location.
pub(in crate::nginx) type LocationConf = <Module as Configuration>::Location;

/// Where the static is that nginx loads.
pub(in crate::nginx) trait ModuleStatic {
    /// The static, for the life of the process.
    fn as_ptr() -> *mut ngx_module_t;
}

/// `NGX_MODULE_UNSET_INDEX`: nginx assigns an index when it finds this, and keeps any other.
const UNSET: ngx_uint_t = ngx_uint_t::MAX;

/// The static that nginx has loaded; set before any configuration of this module exists.
static LOADED: AtomicPtr<ngx_module_t> = AtomicPtr::new(ptr::null_mut());

/// Its `ctx_index`, as long as a configuration has the module.
static CTX_INDEX: AtomicUsize = AtomicUsize::new(UNSET);

/// How many configurations have the module: the one in force, the next while it is read, the former until it is freed.
static CONFIGURATIONS: AtomicUsize = AtomicUsize::new(0);

impl Module {
    /// What marks a shared zone as this module's; nginx only compares it.
    pub(super) fn tag() -> *mut c_void {
        LOADED.load(Relaxed).cast()
    }

    /// The number of what this module keeps at each level, and with each request.
    #[inline(always)]
    pub(super) fn ctx_index() -> usize {
        CTX_INDEX.load(Relaxed)
    }
}

impl HttpModule for Module {
    #[inline(always)]
    fn module() -> &'static ngx_module_t {
        let module = LOADED.load(Relaxed);
        // SAFETY: `create_main_conf` has set it, before anything of this module can be asked for. It is a static; nginx
        // writes the indices before that, and not while this module's code runs.
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

/// What nginx calls first, for the http block.
pub(in crate::nginx) unsafe extern "C" fn create_main_conf<S: ModuleStatic>(cf: *mut ngx_conf_t) -> *mut c_void {
    catch_panic(ptr::null_mut(), || {
        LOADED.store(S::as_ptr(), Relaxed);
        CTX_INDEX.store(Module::module().ctx_index, Relaxed);
        // SAFETY: nginx passes its parser.
        unsafe { Module::create_main_conf(cf) }
    })
}

/// What nginx calls for each location, and each level above.
pub(in crate::nginx) unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes its parser.
    catch_panic(ptr::null_mut(), || unsafe { Module::create_loc_conf(cf) })
}

/// One configuration's use of the indices; it ends with the configuration's pool, also when a reload is refused.
///
/// The image stays mapped after `dlclose` (`-z nodelete`), and its indices would stay with it. Reloads without the module
/// give them to other modules; loaded again, two modules would take one slot for their own. `ctx_index` is set only right
/// before nginx makes this, so none is left behind. A reload that is refused earlier may leave `index` behind: nginx reads
/// that of core modules alone.
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
