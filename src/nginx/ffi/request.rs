//! A request, and the context that this module stores with it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_VERSION_9, NGX_HTTP_VERSION_11, ngx_http_complex_value, ngx_http_discard_request_body, ngx_http_request_t,
    ngx_http_send_header, ngx_pool_cleanup_t, ngx_str_t, ngx_timeofday, ngx_uint_t,
};
use ngx::core::Status;

use super::complex_value::ComplexValue;
use super::log::Log;
use super::module::{LocationConf, MainConf, Module};
use super::pool::{self, Pool};
use super::upstream::Upstream;

/// A request. Its strings, its pool and the configuration live as long as the request.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Request<'r> {
    raw: NonNull<ngx_http_request_t>,
    /// Invariant: the stored context lives exactly as long as the request.
    life: PhantomData<fn(&'r ()) -> &'r ()>,
}

/// Names the type of this module's request context.
pub(in crate::nginx) trait RequestContext {
    /// Must not need a drop: the request's pool frees its memory.
    type Context<'r>;
}

/// This module's request context.
type Context<'r> = <Module as RequestContext>::Context<'r>;

/// A string of the request.
macro_rules! string_field {
    ($request:ident . $($field:tt)+) => {{
        let string = raw_field!($request.$($field)+);
        // SAFETY: in the request's pool or its header buffers, which are not written after the header is parsed.
        unsafe { pool::bytes(string) }
    }};
}

impl<'r> Request<'r> {
    /// # Safety
    /// `raw` is a request that nginx is processing, for `'r`.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_request_t) -> Self {
        // SAFETY: guaranteed by the caller.
        Self { raw: unsafe { NonNull::new_unchecked(raw) }, life: PhantomData }
    }

    #[inline(always)]
    pub(super) fn as_ptr(self) -> *mut ngx_http_request_t {
        self.raw.as_ptr()
    }

    #[inline(always)]
    fn as_ref(&self) -> &ngx_http_request_t {
        // SAFETY: valid for the handle's lifetime; the reference ends before nginx or this module writes the request.
        unsafe { self.raw.as_ref() }
    }

    /// This module's settings of the request's location.
    #[inline(always)]
    pub fn location_conf(self) -> Option<&'r LocationConf> {
        let conf = raw_field!(self.loc_conf).wrapping_add(Module::ctx_index());
        // SAFETY: a location has settings of each module.
        let conf = unsafe { *conf };
        // SAFETY: created by `create_loc_conf`; nginx keeps a configuration while requests use it.
        unsafe { conf.cast::<LocationConf>().as_ref() }
    }

    /// This module's settings of the http block.
    pub fn main_conf(self) -> Option<&'r MainConf> {
        let conf = raw_field!(self.main_conf).wrapping_add(Module::ctx_index());
        // SAFETY: a configuration has settings of each module.
        let conf = unsafe { *conf };
        // SAFETY: created by `create_main_conf`; nginx keeps a configuration while requests use it.
        unsafe { conf.cast::<MainConf>().as_ref() }
    }

    /// The request's pool.
    #[inline(always)]
    pub fn pool(self) -> Pool<'r> {
        let pool = raw_field!(self.pool);
        // SAFETY: a request has a pool for its whole life.
        unsafe { Pool::from_raw(pool) }
    }

    /// The log of the request's connection.
    pub fn log(self) -> Log<'r> {
        let connection = raw_field!(self.connection);
        // SAFETY: a request has a connection for its whole life.
        let log = unsafe { (*connection).log };
        // SAFETY: a connection has a log for its whole life.
        unsafe { Log::from_raw(log) }
    }

    /// The upstream, once the request has one.
    pub fn upstream(self) -> Option<Upstream<'r>> {
        let upstream = raw_field!(self.upstream);
        // SAFETY: a request's upstream lives as long as the request.
        unsafe { Upstream::from_raw(upstream) }
    }

    /// The path: decoded, normalized, after rewrites so far.
    #[inline(always)]
    pub fn path(self) -> &'r [u8] {
        string_field!(self.uri)
    }

    /// Whether `path` is the current path itself, not a copy.
    #[inline(always)]
    pub fn has_path(self, path: &[u8]) -> bool {
        let now = raw_field!(self.uri);
        ptr::eq(path.as_ptr(), now.data) && path.len() == now.len
    }

    /// Path and query as the client sent them.
    pub fn unparsed_uri(self) -> &'r [u8] {
        string_field!(self.unparsed_uri)
    }

    /// The query, without the question mark.
    pub fn args(self) -> &'r [u8] {
        string_field!(self.args)
    }

    /// The host from the request line, `Host` or `:authority`: lower case, without port and trailing dot. Empty if the request
    /// has none.
    pub fn host(self) -> &'r [u8] {
        string_field!(self.headers_in.server)
    }

    /// The method, as a bit `NGX_HTTP_GET`...
    pub fn method(self) -> u32 {
        raw_field!(self.method) as u32
    }

    /// Whether the request has or may have a body: in HTTP/2 the length of a streamed body may be unknown.
    pub fn has_body(self) -> bool {
        self.streams_body()
            || raw_field!(self.headers_in.content_length_n) > 0
            || self.as_ref().headers_in.chunked() != 0
    }

    /// Whether the body is streamed to the backend, so that nginx cannot send it again.
    pub fn streams_body(self) -> bool {
        self.as_ref().request_body_no_buffering() != 0
    }

    /// Evaluates a value for this request; empty if out of memory.
    pub fn evaluate(self, text: &ComplexValue) -> &'r [u8] {
        let mut value = ngx_str_t::empty();
        // SAFETY: nginx is processing the request; the value is of its configuration.
        let outcome = unsafe { ngx_http_complex_value(self.raw.as_ptr(), text.as_ptr(), &raw mut value) };
        // SAFETY: in the request's pool, or, without variables, in the configuration.
        if outcome == Status::NGX_OK.0 { unsafe { pool::bytes(value) } } else { b"" }
    }

    /// Whether this is the main request, not a subrequest.
    pub fn is_main(self) -> bool {
        ptr::eq(self.raw.as_ptr(), raw_field!(self.main))
    }

    /// Whether nginx has redirected the request internally.
    pub fn is_internal(self) -> bool {
        self.as_ref().internal() != 0
    }

    /// Whether the request has failed and its error page is being served.
    pub fn is_error_page(self) -> bool {
        self.is_internal() && (self.as_ref().error_page() != 0 || raw_field!(self.err_status) != 0)
    }

    /// The status of the response.
    pub fn status(self) -> usize {
        match raw_field!(self.err_status) {
            0 => raw_field!(self.headers_out.status),
            status => status,
        }
    }

    /// Whether the client speaks HTTP/1.1.
    pub fn is_http_1_1(self) -> bool {
        raw_field!(self.http_version) == NGX_HTTP_VERSION_11 as usize
    }

    /// Whether the response will have no header, although the client expects one: the backend sent no status line.
    pub fn is_response_headerless(self) -> bool {
        raw_field!(self.http_version) == NGX_HTTP_VERSION_9 as usize && self.client_version().is_some()
    }

    /// Restores the client's version, so that the response has a header.
    pub fn restore_version(self) {
        if let Some(version) = self.client_version() {
            raw_field!(self.http_version = version);
        }
    }

    /// The version of the request line, as a number `NGX_HTTP_VERSION_11`... `None` for HTTP/0.9.
    fn client_version(self) -> Option<usize> {
        let protocol = str::from_utf8(string_field!(self.http_protocol)).ok()?;
        let (major, minor) = protocol.strip_prefix("HTTP/")?.split_once('.')?;
        Some(major.parse::<usize>().ok()? * 1000 + minor.parse::<usize>().ok()?)
    }

    /// Bytes sent to the client.
    pub fn bytes_sent(self) -> u64 {
        let connection = raw_field!(self.connection);
        // SAFETY: a request has a connection for its whole life.
        let sent = unsafe { (*connection).sent };
        sent.max(0) as u64
    }

    /// Milliseconds since the client's first byte.
    pub fn elapsed_milliseconds(self) -> u64 {
        let now = ngx_timeofday();
        let start = (raw_field!(self.start_sec), raw_field!(self.start_msec) as i64);
        ((now.sec - start.0) * 1000 + (now.msec as i64 - start.1)).max(0) as u64
    }

    /// Discards the request body.
    pub fn discard_request_body(self) -> Status {
        // SAFETY: nginx is processing the request.
        Status(unsafe { ngx_http_discard_request_body(self.raw.as_ptr()) })
    }

    /// Sets status and content type of the response.
    pub fn set_content(self, status: u32, content_type: &'static str) {
        raw_field!(self.headers_out.status = status as ngx_uint_t);
        raw_field!(self.headers_out.content_type = pool::string(content_type.as_bytes()));
        // Without parameters: `gzip_types` lists types.
        let bare_type = content_type.split(';').next().unwrap_or_default();
        raw_field!(self.headers_out.content_type_len = bare_type.len());
        raw_field!(self.headers_out.content_type_lowcase = ptr::null_mut());
    }

    /// Sets the length of the response. `None` if unknown: nginx sends chunks, or closes the connection after the body.
    pub fn set_content_length(self, bytes: Option<usize>) {
        raw_field!(self.headers_out.content_length_n = bytes.map_or(-1, |bytes| bytes as i64));
    }

    /// Sends the response header.
    pub fn send_header(self) -> Status {
        // SAFETY: nginx is processing the request.
        Status(unsafe { ngx_http_send_header(self.raw.as_ptr()) })
    }

    /// Whether the response has no body.
    pub fn header_only(self) -> bool {
        self.as_ref().header_only() != 0
    }

    /// Whether this is a subrequest without a receiver for its response, such as one of `mirror`.
    pub fn is_background(self) -> bool {
        self.as_ref().background() != 0
    }

    /// The request context, unless an internal redirect has cleared it.
    #[inline(always)]
    pub fn context(self) -> Option<&'r Context<'r>> {
        // SAFETY: nginx's pointer for this module.
        let context = unsafe { *self.context_slot() };
        // SAFETY: set by `set_context`, or null; all its references live as long as the request.
        unsafe { context.cast::<Context<'r>>().as_ref() }
    }

    /// The request context, also after an internal redirect has cleared [`Request::context`].
    pub fn stored_context(self) -> Option<&'r Context<'r>> {
        if let Some(context) = self.context() {
            return Some(context);
        }
        if !self.is_internal() && self.as_ref().filter_finalize() == 0 {
            return None;
        }
        // SAFETY: the list lives as long as the pool.
        let mut cleanup = unsafe { self.pool().cleanups().as_ref() };
        while let Some(entry) = cleanup {
            if entry.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, MARKER)) {
                // SAFETY: set by `store_context`, alive as long as the pool.
                let stored = unsafe { &*entry.data.cast::<StoredContext<Context<'r>>>() };
                // SAFETY: written by `store_context`.
                let node = unsafe { stored.node.assume_init_ref() };
                // Subrequests share the pool.
                if ptr::eq(node.request, self.raw.as_ptr()) {
                    return Some(&stored.context);
                }
            }
            // SAFETY: the pool's own list.
            cleanup = unsafe { entry.next.as_ref() };
        }
        None
    }

    /// Sets the request context.
    #[inline(always)]
    pub fn set_context(self, context: &'r Context<'r>) {
        // SAFETY: nginx has a pointer for each module, used by that module only.
        unsafe { *self.context_slot() = ptr::from_ref(context).cast_mut().cast() };
    }

    /// Sets the request context so that it survives internal redirects.
    #[inline(always)]
    pub fn store_context(self, stored: &'r mut StoredContext<Context<'r>>) -> &'r Context<'r> {
        let pool = self.pool();
        let data = ptr::from_mut(stored);
        // SAFETY: in the request's pool, as `'r` says.
        let stored = unsafe { &mut *data };
        let cleanup = ngx_pool_cleanup_t { handler: Some(MARKER), data: data.cast(), next: pool.cleanups() };
        let node = stored.node.write(CleanupNode { request: self.raw.as_ptr(), cleanup });
        pool.set_cleanups(&raw mut node.cleanup);
        let context = &stored.context;
        self.set_context(context);
        context
    }

    /// nginx's pointer to the request context of this module.
    #[inline(always)]
    fn context_slot(self) -> *mut *mut c_void {
        let contexts = raw_field!(self.ctx);
        // SAFETY: nginx allocates a pointer for each module.
        unsafe { contexts.add(Module::ctx_index()) }
    }
}

/// A context for [`Request::store_context`]. An internal redirect clears the request's contexts but not the cleanup list of
/// its pool, so the context is linked there too.
pub(in crate::nginx) struct StoredContext<C> {
    context: C,
    /// Written by [`Request::store_context`].
    node: MaybeUninit<CleanupNode>,
}

/// Links the context into the pool's cleanup list.
struct CleanupNode {
    /// The request that the context belongs to.
    request: *const ngx_http_request_t,
    cleanup: ngx_pool_cleanup_t,
}

impl<C> StoredContext<C> {
    /// To be allocated in the request's pool.
    #[inline(always)]
    pub fn new(context: C) -> Self {
        Self { context, node: MaybeUninit::uninit() }
    }
}

impl<C> Deref for StoredContext<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.context
    }
}

impl<C> DerefMut for StoredContext<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.context
    }
}

/// A cleanup handler without effect, which marks the nodes of this module.
unsafe extern "C" fn marker(_: *mut c_void) {}

/// A static, as each use of a constant may have another copy of the function, with another address.
static MARKER: unsafe extern "C" fn(*mut c_void) = marker;
