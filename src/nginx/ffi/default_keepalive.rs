//! Disables nginx's own keepalive in an upstream with `urlproxy_keepalive`.
#![allow(unsafe_code)]

use std::ptr;

use nginx_sys::{nginx_version, ngx_array_t};
use ngx::ngx_string;

use super::config_error::CONF_OK;
use super::parser::Parser;
use super::pool;
use super::proxy::commands;
use super::upstream_block::UpstreamBlock;

/// The first nginx version that keeps upstream connections by default.
const KEEPALIVE_BY_DEFAULT: u32 = 1_029_007;

impl UpstreamBlock<'_> {
    /// Applies `keepalive 0;` to the upstream that is being read, if nginx keeps connections by default. False if the upstream
    /// already has a `keepalive`; a later one is a duplicate for nginx.
    pub fn switch_keepalive_off(&self, parser: &mut Parser<'_>) -> bool {
        if nginx_version < KEEPALIVE_BY_DEFAULT {
            return true;
        }
        let module = parser.cycle().and_then(|cycle| cycle.module(c"ngx_http_upstream_keepalive_module"));
        let Some(module) = module else { return true };
        // SAFETY: an upstream block has settings of each module.
        let level = unsafe { *parser.context().srv_conf.wrapping_add(module.ctx_index) };
        let mut parser = *parser.as_ref();
        let mut words = [ngx_string!("keepalive"), ngx_string!("0")];
        let mut args = ngx_array_t {
            elts: words.as_mut_ptr().cast(),
            nelts: words.len(),
            size: size_of_val(&words[0]),
            nalloc: words.len(),
            pool: parser.pool,
        };
        parser.args = &raw mut args;
        // SAFETY: the names of directives are static.
        let mut commands = commands(module).filter(|command| unsafe { pool::bytes(command.name) } == b"keepalive");
        let Some((command, set)) = commands.next().and_then(|command| Some((command, command.set?))) else {
            return true;
        };
        // SAFETY: called as nginx's parser does, with the settings level of the directive.
        let outcome = unsafe { set(&raw mut parser, ptr::from_ref(command).cast_mut(), level) };
        outcome == CONF_OK
    }
}
