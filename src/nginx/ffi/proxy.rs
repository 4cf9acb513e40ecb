//! Settings of `proxy_pass` and its sibling modules for a location. The structure of the proxy module is private, so its own
//! directives are applied to a scratch location once per configuration, to find where they write.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::ptr;

use nginx_sys::{
    NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MODULE, ngx_array_t, ngx_command_t, ngx_conf_t, ngx_http_core_loc_conf_t,
    ngx_http_handler_pt, ngx_http_module_t, ngx_http_upstream_conf_t, ngx_keyval_t, ngx_module_t, ngx_str_t,
    ngx_uint_t,
};
use ngx::http::{HttpModule, NgxHttpCoreModule};

use super::config_error::CONF_OK;
use super::cycle::module_name;
use super::parser::{Location, Parser};
use super::pool;
use super::upstream_block::UpstreamId;

/// Offsets of settings in the structure of the proxy module.
pub(in crate::nginx) struct ProxyModule {
    ctx_index: usize,
    /// The content handler of a location that has `proxy_pass`.
    handler: ngx_http_handler_pt,
    /// The offset of the `proxy_set_header` lines.
    headers: usize,
    /// The offset of the `proxy_cache_key` text; `None` if nginx was built without a cache.
    cache_key: Option<usize>,
}

/// The merged proxy settings of a location.
pub(in crate::nginx) struct ProxyConf<'c> {
    module: &'c ProxyModule,
    /// owned by nginx, alive as long as the configuration.
    conf: *const u8,
}

impl Parser<'_> {
    /// Finds the settings of the proxy module. `None` if nginx has no such module or an unknown variant: then nothing is
    /// checked. Call it while the levels of the http block are merged.
    pub fn find_proxy(&mut self) -> Option<ProxyModule> {
        let proxy = self.cycle()?.module(c"ngx_http_proxy_module")?;
        if proxy.type_ != NGX_HTTP_MODULE as ngx_uint_t {
            return None;
        }
        // SAFETY: the names of directives are static.
        let command = |name: &[u8]| commands(proxy).find(|command| unsafe { pool::bytes(command.name) } == name);
        let core = self.new_level(NgxHttpCoreModule::module())?;
        let conf = self.new_level(proxy)?;
        let ctx_index = proxy.ctx_index;
        let levels = [(NgxHttpCoreModule::module().ctx_index, core), (ctx_index, conf)];
        // SAFETY: both levels are new and belong to their modules.
        unsafe { self.apply_to(levels, ctx_index, command(b"proxy_pass")?, b"$urlproxy_backend") }?;
        // SAFETY: the type of the core module's settings.
        let handler = unsafe { (*core.cast::<ngx_http_core_loc_conf_t>()).handler };
        handler?;
        let cache_key = command(b"proxy_cache_key").and_then(|command| {
            // SAFETY: both levels are new and belong to their modules.
            let text = unsafe { self.apply_to(levels, ctx_index, command, b"a key") }?;
            // All directive offsets lie within the structure, and the key is stored before the last of them.
            let end = commands(proxy).filter(|c| c.conf == NGX_HTTP_LOC_CONF_OFFSET).map(|c| c.offset).max()?;
            let is_there = |offset: &usize| {
                // SAFETY: two words within the structure; any bits are valid integers.
                let [len, data]: [usize; 2] = unsafe { read_at(conf.cast(), *offset) };
                (len, data) == (text.len, text.data.addr())
            };
            (0..end.saturating_sub(size_of::<ngx_str_t>())).step_by(align_of::<ngx_str_t>()).find(is_there)
        });
        Some(ProxyModule { ctx_index, handler, headers: command(b"proxy_set_header")?.offset, cache_key })
    }

    /// The proxy settings of the location that is being merged, if it has `proxy_pass`.
    pub fn proxy_conf<'a>(&'a mut self, module: &'a ProxyModule) -> Option<ProxyConf<'a>> {
        let location: Location<'_> = self.location()?;
        let handlers = location.as_ref().handler.zip(module.handler);
        let is_proxied = handlers.is_some_and(|(one, other)| ptr::fn_addr_eq(one, other));
        // SAFETY: a location has settings of each module.
        let conf = unsafe { *self.context().loc_conf.wrapping_add(module.ctx_index) };
        (is_proxied && !conf.is_null()).then_some(ProxyConf { module, conf: conf.cast() })
    }

    /// The upstreams of the location that is being merged, other than by `proxy_pass`, each with the name of its directive.
    pub fn other_upstreams(&mut self) -> Vec<(&'static str, UpstreamId)> {
        const MODULES: [(&CStr, &str); 4] = [
            (c"ngx_http_grpc_module", "grpc_pass"),
            (c"ngx_http_uwsgi_module", "uwsgi_pass"),
            (c"ngx_http_fastcgi_module", "fastcgi_pass"),
            (c"ngx_http_scgi_module", "scgi_pass"),
        ];
        let context = self.context();
        let upstream = |module: &ngx_module_t| {
            let (_, directive) = MODULES.into_iter().find(|(known, _)| *known == module_name(module))?;
            // SAFETY: a location has settings of each module.
            let conf = unsafe { *context.loc_conf.wrapping_add(module.ctx_index) };
            // SAFETY: the common upstream settings are the first member of the structure in all these modules.
            let common = unsafe { conf.cast::<ngx_http_upstream_conf_t>().as_ref() }?;
            Some((directive, UpstreamId::of(common.upstream)?))
        };
        self.cycle().into_iter().flat_map(|cycle| cycle.modules()).filter_map(upstream).collect()
    }

    /// Creates location settings of a module.
    fn new_level(&mut self, module: &ngx_module_t) -> Option<*mut c_void> {
        // SAFETY: an http module has this context.
        let context = unsafe { &*module.ctx.cast::<ngx_http_module_t>() };
        // SAFETY: nginx's parser, inside the http block.
        let level = unsafe { context.create_loc_conf?(self.as_ptr()) };
        (!level.is_null()).then_some(level)
    }

    /// Applies a directive of the module at `ctx_index` to these levels. Returns the value that it got.
    ///
    /// # Safety
    /// The levels belong to the modules at their indices, and nothing else uses them.
    unsafe fn apply_to(
        &mut self,
        levels: [(usize, *mut c_void); 2],
        ctx_index: usize,
        command: &ngx_command_t,
        value: &'static [u8],
    ) -> Option<ngx_str_t> {
        let mut parser: ngx_conf_t = *self.as_ref();
        let last = levels.iter().map(|(ctx_index, _)| *ctx_index).max()?;
        let mut loc_conf = vec![ptr::null_mut(); last + 1];
        for (ctx_index, level) in levels {
            *loc_conf.get_mut(ctx_index)? = level;
        }
        let mut context = *self.context();
        context.loc_conf = loc_conf.as_mut_ptr();
        parser.ctx = (&raw mut context).cast();
        // The level may store the value for the life of the configuration.
        let value = pool::string(self.pool().copy(value)?);
        let mut words = [command.name, value];
        let mut args = ngx_array_t {
            elts: words.as_mut_ptr().cast(),
            nelts: words.len(),
            size: size_of::<ngx_str_t>(),
            nalloc: words.len(),
            pool: parser.pool,
        };
        parser.args = &raw mut args;
        let conf = levels.into_iter().find(|(of, _)| *of == ctx_index)?.1;
        // SAFETY: called as nginx's parser does, with the settings level of the directive.
        let outcome = unsafe { command.set?(&raw mut parser, ptr::from_ref(command).cast_mut(), conf) };
        (outcome == CONF_OK).then_some(value)
    }
}

impl ProxyConf<'_> {
    /// The common upstream settings, the first member of the structure.
    fn common(&self) -> &ngx_http_upstream_conf_t {
        // SAFETY: nginx reads them from there too, through `ngx_http_upstream_t`.
        unsafe { &*self.conf.cast() }
    }

    /// The upstream that `proxy_pass` names; `None` if it contains variables.
    pub fn upstream(&self) -> Option<UpstreamId> {
        UpstreamId::of(self.common().upstream)
    }

    /// The value of a `proxy_set_header`.
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        // SAFETY: `proxy_set_header` stores an array of pairs there, or null.
        let headers: *const ngx_array_t = unsafe { read_at(self.conf, self.module.headers) };
        // SAFETY: owned by nginx, alive as long as the configuration.
        let headers = unsafe { headers.as_ref() }?;
        // SAFETY: an array of pairs.
        let headers = unsafe { headers.as_slice::<ngx_keyval_t>() };
        // SAFETY: a string of the configuration.
        let text = |string| unsafe { pool::bytes(string) };
        headers.iter().find(|header| text(header.key).eq_ignore_ascii_case(name)).map(|header| text(header.value))
    }

    /// The cache key as written, empty for nginx's default; `None` without a cache.
    pub fn cache_key(&self) -> Option<&[u8]> {
        let offset = self.module.cache_key.filter(|_| self.common().cache() > 0)?;
        // SAFETY: `proxy_cache_key` stores its text there.
        let text: ngx_str_t = unsafe { read_at(self.conf, offset) };
        // SAFETY: a string of the configuration.
        Some(unsafe { pool::bytes(text) })
    }
}

/// The value at an offset in bytes.
///
/// # Safety
/// A value of this type is at that offset.
unsafe fn read_at<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: guaranteed by the caller.
    unsafe { ptr::read(base.wrapping_add(offset).cast()) }
}

/// The directives of a module.
pub(super) fn commands(module: &ngx_module_t) -> impl Iterator<Item = &ngx_command_t> {
    let first = module.commands.cast_const();
    (0..).map_while(move |at| {
        // SAFETY: the list ends with an entry without a name.
        let command = unsafe { first.wrapping_add(at).as_ref() }?;
        (command.name.len > 0).then_some(command)
    })
}
