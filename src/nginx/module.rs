//! The module definition that nginx loads: directives and hooks.

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_ANY, NGX_CONF_BLOCK, NGX_CONF_TAKE1, NGX_HTTP_LIF_CONF, NGX_HTTP_LMT_CONF,
    NGX_HTTP_LOC_CONF, NGX_HTTP_MAIN_CONF, NGX_HTTP_MODULE, NGX_HTTP_SIF_CONF, NGX_HTTP_SRV_CONF, NGX_HTTP_UPS_CONF,
    ngx_command_t, ngx_http_module_t, ngx_module_t, ngx_uint_t,
};

use super::conf::location::UrlproxyHash;
use super::conf::main::UrlproxyTable;
use super::ffi::directive::command;
use super::ffi::entry;
use super::ffi::module::{Module, ModuleStatic, create_loc_conf, create_main_conf};
use super::upstream::{UrlproxyKeepalive, UrlproxyPeers};
use crate::directive::location::{Urlproxy, UrlproxyCanonical, UrlproxyDefault, UrlproxyLoopMark, UrlproxyMiss};
use crate::directive::moved::UrlproxyMoved;
use crate::directive::pages::{UrlproxyAdmin, UrlproxyList};

const LEVELS: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;
/// Blocks inside a server or location: `if`, `limit_except`.
const BLOCKS: u32 = NGX_HTTP_SIF_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF;

/// All directives: type, allowed contexts and number of arguments.
macro_rules! directives {
    ($($directive:ty => $flags:expr,)+) => {
        static mut COMMANDS: [ngx_command_t; [$(stringify!($directive)),+].len() + 1] =
            [$(command::<$directive>($flags),)+ ngx_command_t::empty()];

        #[cfg(test)]
        const NAMES: &[&str] = &[$(<$directive as super::ffi::directive::Command>::DIRECTIVE),+];
    };
}

directives! {
    UrlproxyTable => NGX_HTTP_MAIN_CONF | NGX_CONF_BLOCK | NGX_CONF_TAKE1,
    Urlproxy => LEVELS | BLOCKS | NGX_CONF_1MORE,
    UrlproxyDefault => LEVELS | NGX_CONF_1MORE,
    UrlproxyCanonical => LEVELS | NGX_CONF_1MORE,
    UrlproxyMoved => LEVELS | NGX_CONF_1MORE,
    UrlproxyHash => LEVELS | NGX_CONF_TAKE1,
    UrlproxyMiss => LEVELS | NGX_CONF_1MORE,
    UrlproxyLoopMark => LEVELS | NGX_CONF_1MORE,
    UrlproxyList => NGX_HTTP_LOC_CONF | NGX_CONF_1MORE,
    UrlproxyAdmin => NGX_HTTP_LOC_CONF | NGX_CONF_1MORE,
    UrlproxyPeers => NGX_HTTP_UPS_CONF | NGX_CONF_ANY,
    UrlproxyKeepalive => NGX_HTTP_UPS_CONF | NGX_CONF_ANY,
}

static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(entry::preconfiguration::<Module>),
    postconfiguration: Some(entry::postconfiguration::<Module>),
    create_main_conf: Some(create_main_conf::<Static>),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(create_loc_conf),
    merge_loc_conf: Some(entry::merge_loc_conf::<Module>),
};

ngx::ngx_modules!(ngx_http_urlproxy_module);

/// The module, under the name that `load_module` shows.
#[allow(non_upper_case_globals)]
static mut ngx_http_urlproxy_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(entry::init_module::<Module>),
    init_process: Some(entry::init_process::<Module>),
    exit_process: Some(entry::exit_process::<Module>),
    ..ngx_module_t::default()
};

struct Static;

impl ModuleStatic for Static {
    fn as_ptr() -> *mut ngx_module_t {
        &raw mut ngx_http_urlproxy_module
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directive::table::ENTRIES;

    #[test]
    fn reference_lists_exactly_the_directives() {
        let page = include_str!("../../docs/directives.md");
        let described = page.lines().filter_map(|line| line.strip_prefix("**Syntax:** `"));
        let mut described: Vec<_> = described.filter_map(|line| line.split([' ', ';', '`']).next()).collect();
        let mut names: Vec<_> = NAMES.iter().copied().chain(ENTRIES.iter().map(|(name, _)| *name)).collect();
        names.sort_unstable();
        described.sort_unstable();
        assert_eq!(names, described);
    }
}
