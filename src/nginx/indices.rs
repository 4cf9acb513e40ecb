//! The module's indices among nginx's modules: given back when the last configuration that has the module goes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nginx_sys::ngx_uint_t;

use super::module::ngx_http_urlproxy_module;

/// `NGX_MODULE_UNSET_INDEX`: nginx assigns an index when it finds this, and keeps any other.
const UNSET: ngx_uint_t = ngx_uint_t::MAX;

/// How many configurations have the module: the one in force, the next while it is read, the former until it is freed.
static CONFIGURATIONS: AtomicUsize = AtomicUsize::new(0);

/// One configuration's use of the indices; it ends with the configuration's pool, also when a reload is refused.
///
/// The image stays mapped after `dlclose` (`-z nodelete`), and its indices would stay with it. Reloads without the module
/// give them to other modules; loaded again, two modules would take one slot for their own. `ctx_index` is set only right
/// before nginx makes this, so none is left behind. A reload that is refused earlier may leave `index` behind: nginx reads
/// that of core modules alone.
pub(super) struct IndicesInUse(());

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
        let module = &raw mut ngx_http_urlproxy_module;
        // SAFETY: nginx frees configurations on its one thread, and no configuration has the module any more: its next
        // reader is `load_module`, or nobody.
        let module = unsafe { &mut *module };
        module.index = UNSET;
        module.ctx_index = UNSET;
    }
}
