//! What the proxy module was told for a location. Its structure is private, so its own directives show where they write:
//! they are applied to a scratch location once per configuration.

use std::ffi::{CStr, c_void};
use std::ptr;

use nginx_sys::{
    NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MODULE, ngx_array_t, ngx_command_t, ngx_conf_t, ngx_http_conf_ctx_t,
    ngx_http_core_loc_conf_t, ngx_http_handler_pt, ngx_http_module_t, ngx_http_upstream_conf_t,
    ngx_http_upstream_srv_conf_t, ngx_keyval_t, ngx_module_t, ngx_str_t, ngx_uint_t,
};
use ngx::http::{HttpModule, NgxHttpCoreModule};

use super::directive::CONF_OK;
use super::pool;

/// Where the proxy module keeps what matters here.
pub(super) struct ProxyModule {
    slot: usize,
    /// The content handler of a location that has `proxy_pass`.
    handler: ngx_http_handler_pt,
    /// The offset of the `proxy_set_header` lines.
    headers: usize,
    /// The offset of the text of `proxy_cache_key`; without it, nginx was built without a cache.
    cache_key: Option<usize>,
}

/// What was said for one location, its upper levels included.
pub(super) struct ProxyConf<'a> {
    module: &'a ProxyModule,
    conf: *const u8,
}

impl ProxyModule {
    /// `None` when nginx has no such module, or one that behaves otherwise than the known ones: then nothing is judged.
    ///
    /// # Safety
    /// `cf` is nginx's parser while the levels of the http block are merged.
    pub unsafe fn find(cf: *mut ngx_conf_t) -> Option<Self> {
        // SAFETY: the caller's promise; so it is where `cf` is passed on.
        let parser = unsafe { &*cf };
        // SAFETY: a configuration is read for a cycle.
        let cycle = unsafe { &*parser.cycle };
        // SAFETY: a cycle has an array of so many modules.
        let modules = unsafe { std::slice::from_raw_parts(cycle.modules, cycle.modules_n) };
        let is_proxy = |module: &&ngx_module_t| {
            // SAFETY: nginx names each module with a C string.
            let name = unsafe { CStr::from_ptr(module.name) };
            name == c"ngx_http_proxy_module" && module.type_ == NGX_HTTP_MODULE as ngx_uint_t
        };
        // SAFETY: the modules of the cycle are loaded.
        let proxy = modules.iter().filter_map(|module| unsafe { module.as_ref() }).find(is_proxy)?;
        let command = |name: &[u8]| {
            commands(proxy).find(|command| {
                // SAFETY: the names of directives are static.
                unsafe { pool::bytes(command.name) == name }
            })
        };
        let scratch = Scratch { parser: *parser, slot: proxy.ctx_index };
        // SAFETY: as above.
        let core = unsafe { new_level(cf, NgxHttpCoreModule::module()) }?;
        // SAFETY: as above.
        let conf = unsafe { new_level(cf, proxy) }?;
        let levels = [(NgxHttpCoreModule::module().ctx_index, core), (proxy.ctx_index, conf)];
        // SAFETY: both levels are fresh and of their modules.
        unsafe { scratch.apply(levels, command(b"proxy_pass")?, b"$urlproxy_backend") }?;
        // SAFETY: the core module's own type.
        let handler = unsafe { (*core.cast::<ngx_http_core_loc_conf_t>()).handler };
        handler?;
        let cache_key = command(b"proxy_cache_key").and_then(|command| {
            // SAFETY: as above.
            let text = unsafe { scratch.apply(levels, command, b"a key") }?;
            // Every directive's offset is within the structure, and this is written before the last one's.
            let end = commands(proxy).filter(|c| c.conf == NGX_HTTP_LOC_CONF_OFFSET).map(|c| c.offset).max()?;
            let is_there = |offset: &usize| {
                // SAFETY: a word within the structure; any bits are two integers.
                let [len, data]: [usize; 2] = unsafe { read_at(conf.cast(), *offset) };
                (len, data) == (text.len, text.data.addr())
            };
            (0..end.saturating_sub(size_of::<ngx_str_t>())).step_by(align_of::<ngx_str_t>()).find(is_there)
        });
        Some(Self { slot: scratch.slot, handler, headers: command(b"proxy_set_header")?.offset, cache_key })
    }

    /// What was said for a location, if it has `proxy_pass`.
    ///
    /// # Safety
    /// `ctx` and `location` are nginx's of one location whose levels are merged, and outlive the result.
    pub unsafe fn conf_of(
        &self,
        ctx: &ngx_http_conf_ctx_t,
        location: &ngx_http_core_loc_conf_t,
    ) -> Option<ProxyConf<'_>> {
        let is_proxied = location.handler.zip(self.handler).is_some_and(|(one, other)| ptr::fn_addr_eq(one, other));
        // SAFETY: a location has a level of each module.
        let conf: *const u8 = unsafe { read_at(ctx.loc_conf.cast(), self.slot * size_of::<*const u8>()) };
        (is_proxied && !conf.is_null()).then_some(ProxyConf { module: self, conf })
    }
}

impl ProxyConf<'_> {
    /// What all modules that pass requests on have in common, their structures' first member.
    fn common(&self) -> &ngx_http_upstream_conf_t {
        // SAFETY: `ngx_http_upstream_t` takes it from there.
        unsafe { &*self.conf.cast() }
    }

    /// The upstream that `proxy_pass` names; null when there are variables in it.
    pub fn upstream(&self) -> *const ngx_http_upstream_srv_conf_t {
        self.common().upstream
    }

    /// The value of a `proxy_set_header`.
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        // SAFETY: `proxy_set_header` keeps an array of pairs there, or null.
        let headers: *const ngx_array_t = unsafe { read_at(self.conf, self.module.headers) };
        // SAFETY: as above.
        let headers = unsafe { headers.as_ref() }?;
        // SAFETY: as above.
        let headers = unsafe { headers.as_slice::<ngx_keyval_t>() };
        // SAFETY: the configuration's own strings.
        let is_named = |header: &&ngx_keyval_t| unsafe { pool::bytes(header.key) }.eq_ignore_ascii_case(name);
        // SAFETY: as above.
        headers.iter().find(is_named).map(|header| unsafe { pool::bytes(header.value) })
    }

    /// The key of cached pages as it is written, empty for nginx's own; `None` where nothing is cached.
    pub fn cache_key(&self) -> Option<&[u8]> {
        let offset = self.module.cache_key.filter(|_| self.common().cache() > 0)?;
        // SAFETY: `proxy_cache_key` keeps its text there.
        let text: ngx_str_t = unsafe { read_at(self.conf, offset) };
        // SAFETY: the configuration's own string.
        Some(unsafe { pool::bytes(text) })
    }
}

/// The upstreams that a location passes requests to otherwise than by `proxy_pass`, each with the directive that says so.
///
/// # Safety
/// `cf` is nginx's parser while it merges the levels of this location, and those of nginx's own modules are merged.
pub(super) unsafe fn other_upstreams(cf: *mut ngx_conf_t) -> Vec<(&'static str, *const ngx_http_upstream_srv_conf_t)> {
    const MODULES: [(&CStr, &str); 4] = [
        (c"ngx_http_grpc_module", "grpc_pass"),
        (c"ngx_http_uwsgi_module", "uwsgi_pass"),
        (c"ngx_http_fastcgi_module", "fastcgi_pass"),
        (c"ngx_http_scgi_module", "scgi_pass"),
    ];
    // SAFETY: the caller's promise.
    let parser = unsafe { &*cf };
    // SAFETY: the parser's context is of the http block.
    let ctx = unsafe { &*parser.ctx.cast::<ngx_http_conf_ctx_t>() };
    // SAFETY: a configuration is read for a cycle.
    let cycle = unsafe { &*parser.cycle };
    // SAFETY: a cycle has an array of so many modules.
    let modules = unsafe { std::slice::from_raw_parts(cycle.modules, cycle.modules_n) };
    // SAFETY: the modules of the cycle are loaded.
    let modules = modules.iter().filter_map(|module| unsafe { module.as_ref() });
    let upstream = |module: &ngx_module_t| {
        // SAFETY: nginx names each module with a C string.
        let name = unsafe { CStr::from_ptr(module.name) };
        let (_, directive) = MODULES.into_iter().find(|(known, _)| *known == name)?;
        // SAFETY: a location has a level of each module.
        let conf: *const ngx_http_upstream_conf_t =
            unsafe { read_at(ctx.loc_conf.cast(), module.ctx_index * size_of::<*const u8>()) };
        // SAFETY: what all modules that pass requests on have in common is their structures' first member.
        let common = unsafe { conf.as_ref() }?;
        Some((directive, common.upstream.cast_const())).filter(|(_, upstream)| !upstream.is_null())
    };
    modules.filter_map(upstream).collect()
}

/// A parser that stands at a directive of our own.
struct Scratch {
    parser: ngx_conf_t,
    slot: usize,
}

impl Scratch {
    /// Has the proxy module take a directive, for a location of these levels. What it took.
    ///
    /// # Safety
    /// The levels are the core's and the proxy module's, and nobody else has them.
    unsafe fn apply(
        &self,
        levels: [(usize, *mut c_void); 2],
        command: &ngx_command_t,
        value: &'static [u8],
    ) -> Option<ngx_str_t> {
        let mut parser = self.parser;
        let last = levels.iter().map(|(slot, _)| *slot).max()?;
        let mut loc_conf = vec![ptr::null_mut(); last + 1];
        for (slot, level) in levels {
            *loc_conf.get_mut(slot)? = level;
        }
        // SAFETY: the parser's context is of the http block.
        let mut ctx = unsafe { *parser.ctx.cast::<ngx_http_conf_ctx_t>() };
        ctx.loc_conf = loc_conf.as_mut_ptr();
        parser.ctx = (&raw mut ctx).cast();
        // The level may keep the value as long as the configuration.
        // SAFETY: the configuration's pool.
        let value = pool::string(unsafe { pool::copy(parser.pool, value) }?);
        let mut words = [command.name, value];
        let mut args = ngx_array_t {
            elts: words.as_mut_ptr().cast(),
            nelts: words.len(),
            size: size_of::<ngx_str_t>(),
            nalloc: words.len(),
            pool: parser.pool,
        };
        parser.args = &raw mut args;
        let conf = levels.into_iter().find(|(slot, _)| *slot == self.slot)?.1;
        // SAFETY: called as nginx's parser does, with the level that belongs to the directive.
        let outcome = unsafe { command.set?(&raw mut parser, ptr::from_ref(command).cast_mut(), conf) };
        (outcome == CONF_OK).then_some(value)
    }
}

/// A value at an offset in bytes.
///
/// # Safety
/// There is such a value.
unsafe fn read_at<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { ptr::read(base.wrapping_add(offset).cast()) }
}

/// A fresh level of a module for a location.
///
/// # Safety
/// `cf` is nginx's parser, inside the http block.
unsafe fn new_level(cf: *mut ngx_conf_t, module: &ngx_module_t) -> Option<*mut c_void> {
    // SAFETY: an http module has this context.
    let context = unsafe { &*module.ctx.cast::<ngx_http_module_t>() };
    // SAFETY: the caller's promise.
    let level = unsafe { context.create_loc_conf?(cf) };
    (!level.is_null()).then_some(level)
}

/// The directives of a module.
pub(super) fn commands(module: &ngx_module_t) -> impl Iterator<Item = &ngx_command_t> {
    let first = module.commands.cast_const();
    (0..).map_while(move |at| {
        // SAFETY: the list goes on until one without a name.
        let command = unsafe { first.wrapping_add(at).as_ref() }?;
        (command.name.len > 0).then_some(command)
    })
}
