//! nginx's own keep-alive, which must be off where `urlproxy_keepalive` is on: since 1.29.7 it is on unless told otherwise.

use std::ffi::CStr;
use std::ptr;

use nginx_sys::{nginx_version, ngx_array_t, ngx_conf_t, ngx_http_conf_ctx_t, ngx_module_t};
use ngx::ngx_string;

use super::directive::CONF_OK;
use super::pool;
use super::proxy_conf::commands;

/// The first nginx that keeps connections unless `keepalive 0;` is said.
const ON_BY_DEFAULT: u32 = 1_029_007;

/// Says `keepalive 0;` in the upstream that is being read. False when the upstream has a `keepalive` already; one that
/// follows is a duplicate for nginx.
///
/// # Safety
/// `cf` is nginx's parser, inside an upstream's block.
pub(super) unsafe fn switch_off(cf: *mut ngx_conf_t) -> bool {
    if nginx_version < ON_BY_DEFAULT {
        return true;
    }
    // SAFETY: the caller's promise.
    let mut parser = unsafe { *cf };
    // SAFETY: a configuration is read for a cycle.
    let cycle = unsafe { &*parser.cycle };
    // SAFETY: a cycle has an array of so many modules.
    let modules = unsafe { std::slice::from_raw_parts(cycle.modules, cycle.modules_n) };
    // SAFETY: the modules of the cycle are loaded.
    let mut modules = modules.iter().filter_map(|module| unsafe { module.as_ref() });
    let is_named = |module: &&ngx_module_t| {
        // SAFETY: nginx names each module with a C string.
        unsafe { CStr::from_ptr(module.name) == c"ngx_http_upstream_keepalive_module" }
    };
    let Some(module) = modules.find(is_named) else { return true };
    // SAFETY: inside an upstream the parser's context is that of the block.
    let context = unsafe { &*parser.ctx.cast::<ngx_http_conf_ctx_t>() };
    // SAFETY: a block has a level of each module.
    let level = unsafe { context.srv_conf.add(module.ctx_index) };
    // SAFETY: as above.
    let level = unsafe { *level };
    let mut words = [ngx_string!("keepalive"), ngx_string!("0")];
    let mut args = ngx_array_t {
        elts: words.as_mut_ptr().cast(),
        nelts: words.len(),
        size: size_of_val(&words[0]),
        nalloc: words.len(),
        pool: parser.pool,
    };
    parser.args = &raw mut args;
    let command = commands(module).find(|command| {
        // SAFETY: the names of directives are static.
        unsafe { pool::bytes(command.name) == b"keepalive" }
    });
    let Some((command, set)) = command.and_then(|command| Some((command, command.set?))) else { return true };
    // SAFETY: called as nginx's parser does, with the level that belongs to the directive.
    let outcome = unsafe { set(&raw mut parser, ptr::from_ref(command).cast_mut(), level) };
    outcome == CONF_OK
}
