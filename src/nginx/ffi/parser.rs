//! nginx's configuration parser.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

use nginx_sys::{
    NGX_HTTP_LIF_CONF, NGX_HTTP_LOC_CONF, NGX_LOG_EMERG, ngx_command_t, ngx_conf_handler_pt, ngx_conf_log_error,
    ngx_conf_parse, ngx_conf_t, ngx_http_compile_complex_value, ngx_http_compile_complex_value_t,
    ngx_http_complex_value_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_handler_pt, ngx_str_t,
    ngx_uint_t,
};
use ngx::core::Status;
use ngx::http::{
    HttpModuleLocationConf, HttpModuleMainConf, HttpModuleServerConf, NgxHttpCoreModule, NgxHttpUpstreamModule,
};

use super::complex_value::ComplexValue;
use super::config_error::{CONF_ERROR, CONF_OK, ConfigError};
use super::cycle::Cycle;
use super::handler::{Handler, handler};
use super::log::Log;
use super::module::{MainConf, Module};
use super::panic_guard::catch_panic;
use super::pool::{self, Pool};
use super::upstream_block::UpstreamBlock;

/// The parser, for the duration of a call from nginx.
pub(in crate::nginx) struct Parser<'c> {
    raw: *mut ngx_conf_t,
    life: PhantomData<&'c ngx_conf_t>,
}

/// Position in the handler list of a phase. nginx runs the list from back to front, in the log phase from front to back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::nginx) enum Push {
    /// After the existing handlers.
    Back,
    /// Before the existing handlers.
    Front,
}

impl<'c> Parser<'c> {
    /// # Safety
    /// `raw` is nginx's parser for `'c`, inside the http block or just before it.
    pub(super) unsafe fn from_raw(raw: *mut ngx_conf_t) -> Self {
        Self { raw, life: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_conf_t {
        self.raw
    }

    pub(super) fn as_ref(&self) -> &'c ngx_conf_t {
        // SAFETY: valid for the handle's lifetime; the reference ends before nginx or this module writes the parser.
        unsafe { &*self.raw }
    }

    /// This module's settings of the http block.
    ///
    /// # Safety
    /// No mutable reference to the settings exists while this one is used.
    pub(super) unsafe fn main_conf(&self) -> Option<&'c MainConf> {
        Module::main_conf(self.as_ref())
    }

    /// The settings of the levels that are being read.
    pub(super) fn context(&self) -> &'c ngx_http_conf_ctx_t {
        // SAFETY: inside the http block this is the parser's context.
        unsafe { &*self.as_ref().ctx.cast() }
    }

    /// The pool of the configuration.
    pub fn pool(&self) -> Pool<'c> {
        // SAFETY: a configuration has a pool, which outlives the call.
        unsafe { Pool::from_raw(self.as_ref().pool) }
    }

    /// The log of the parser.
    pub fn log(&self) -> Log<'c> {
        // SAFETY: a parser has a log for its whole life.
        unsafe { Log::from_raw(self.as_ref().log) }
    }

    /// The cycle that the configuration is being read for; incomplete.
    pub(super) fn cycle(&self) -> Option<Cycle<'c>> {
        // SAFETY: the cycle of a configuration outlives the parser.
        unsafe { Cycle::from_raw(self.as_ref().cycle) }
    }

    /// The current cycle, which this configuration will replace.
    pub(super) fn old_cycle(&self) -> Option<Cycle<'c>> {
        let old = self.cycle()?.old_cycle();
        // SAFETY: nginx keeps the current cycle until the new one takes effect.
        unsafe { Cycle::from_raw(old) }
    }

    /// Whether the directive is in a location, or in an `if` inside one.
    pub fn is_in_location(&self) -> bool {
        self.as_ref().cmd_type & (NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF) as ngx_uint_t != 0
    }

    /// The words of the directive: its name, then the arguments.
    pub(super) fn words(&self) -> Vec<&'c [u8]> {
        // SAFETY: in a directive, the parser keeps its words in an array.
        let words = unsafe { &*self.as_ref().args };
        // SAFETY: the words are strings.
        let words = unsafe { words.as_slice::<ngx_str_t>() };
        // SAFETY: a word lives as long as the configuration.
        words.iter().map(|word| unsafe { pool::bytes(*word) }).collect()
    }

    /// Logs an error with file and line, unless nginx has logged it. Returns `NGX_CONF_ERROR`.
    pub(super) fn log_error(&self, error: &ConfigError) -> *mut c_char {
        let ConfigError::Message(error) = error else { return CONF_ERROR };
        let level = NGX_LOG_EMERG as ngx_uint_t;
        // SAFETY: nginx's parser; the format takes a length and that many bytes.
        unsafe { ngx_conf_log_error(level, self.raw, 0, c"%*s".as_ptr(), error.len(), error.as_ptr()) };
        CONF_ERROR
    }

    /// The location that is being read or merged.
    pub fn location(&mut self) -> Option<Location<'c>> {
        let raw = NgxHttpCoreModule::location_conf_mut(self.as_ref())?;
        Some(Location { raw, life: PhantomData })
    }

    /// The file and line where the enclosing server block begins.
    pub fn server_place(&self) -> Option<(String, u64)> {
        let server = NgxHttpCoreModule::server_conf(self.as_ref()).filter(|server| !server.file_name.is_null())?;
        // SAFETY: nginx stores the file name as a C string.
        let file = unsafe { CStr::from_ptr(server.file_name.cast()) };
        Some((file.to_string_lossy().into_owned(), server.line as u64))
    }

    /// The upstream block that is being read.
    pub fn upstream(&mut self) -> Option<UpstreamBlock<'c>> {
        let raw = NgxHttpUpstreamModule::server_conf_mut(self.as_ref())?;
        // SAFETY: owned by nginx, alive as long as the configuration.
        Some(unsafe { UpstreamBlock::from_raw(raw) })
    }

    /// Registers `H` as a handler of a phase, `NGX_HTTP_ACCESS_PHASE` or another. `None` if out of memory.
    pub fn add_handler<H: Handler>(&mut self, phase: u32, at: Push) -> Option<()> {
        let core = NgxHttpCoreModule::main_conf_mut(self.as_ref())?;
        // Not every phase has handlers.
        let handlers =
            &mut core.phases.get_mut(phase as usize).filter(|phase| !phase.handlers.elts.is_null())?.handlers;
        // SAFETY: a phase's handlers are an array of this type.
        unsafe { pool::push::<ngx_http_handler_pt>(&raw mut *handlers, Some(handler::<H>)) }?;
        if at == Push::Front {
            // SAFETY: an array of this type, and nothing else accesses it now.
            unsafe { handlers.as_slice_mut::<ngx_http_handler_pt>() }.rotate_right(1);
        }
        Some(())
    }

    /// Reads the block of a directive: `f` gets the words of each line. An error was already logged.
    pub fn read_block(&mut self, mut f: impl FnMut(&[&str]) -> Result<(), ConfigError>) -> Result<(), ConfigError> {
        let mut f: &mut dyn FnMut(&[&str]) -> Result<(), ConfigError> = &mut f;
        let ngx_conf_t { handler, handler_conf, .. } = *self.as_ref();
        self.set_line_handler(Some(read_line), (&raw mut f).cast());
        // SAFETY: nginx's parser is positioned after the opening brace.
        let outcome = unsafe { ngx_conf_parse(self.raw, ptr::null_mut()) };
        self.set_line_handler(handler, handler_conf);
        if outcome == CONF_OK { Ok(()) } else { Err(ConfigError::Logged) }
    }

    fn set_line_handler(&mut self, handler: ngx_conf_handler_pt, conf: *mut c_void) {
        // SAFETY: nginx's parser, valid for the handle's lifetime; nothing else accesses it now.
        let parser = unsafe { &mut *self.raw };
        (parser.handler, parser.handler_conf) = (handler, conf);
    }

    /// Compiles the first argument of the directive, a text with variables. nginx logs an error itself.
    pub fn compile_argument(&mut self) -> Result<ComplexValue, ConfigError> {
        self.try_compile_argument().ok_or(ConfigError::Logged)
    }

    fn try_compile_argument(&mut self) -> Option<ComplexValue> {
        // SAFETY: nginx itself initializes these to zero.
        let value = self.pool().allocate(|| unsafe { std::mem::zeroed::<ngx_http_complex_value_t>() })?;
        let value = ptr::from_mut(value);
        // SAFETY: nginx itself initializes these to zero.
        let mut compiler = unsafe { std::mem::zeroed::<ngx_http_compile_complex_value_t>() };
        // SAFETY: in a directive, the parser keeps its words in an array.
        let words = unsafe { &mut *self.as_ref().args };
        // SAFETY: the words are strings.
        let word = unsafe { words.as_slice_mut::<ngx_str_t>() }.get_mut(1)?;
        (compiler.cf, compiler.value, compiler.complex_value) = (self.raw, word, value);
        // SAFETY: nginx's parser, a word of it, and memory of the configuration's pool.
        let outcome = unsafe { ngx_http_compile_complex_value(&raw mut compiler) };
        // SAFETY: in the configuration's pool; its holder is freed with the configuration.
        if outcome == Status::NGX_OK.0 { unsafe { ComplexValue::from_raw(value) } } else { None }
    }

    /// Runs `f` with the words of the directive, and logs its error.
    pub(super) fn apply(
        &mut self,
        takes_bytes: bool,
        f: impl FnOnce(&[&str], &mut Self) -> Result<(), ConfigError>,
    ) -> *mut c_char {
        let words: Vec<_> = self.words().into_iter().map(String::from_utf8_lossy).collect();
        let is_text = words.iter().all(|word| matches!(word, Cow::Borrowed(_)));
        let outcome = if is_text || takes_bytes {
            f(&words.iter().map(AsRef::as_ref).collect::<Vec<_>>(), self)
        } else {
            Err("the arguments of a directive are not valid UTF-8".into())
        };
        match outcome {
            Ok(()) => CONF_OK,
            Err(error) => self.log_error(&error),
        }
    }
}

/// Called by nginx for each line of a block read by [`Parser::read_block`].
unsafe extern "C" fn read_line(cf: *mut ngx_conf_t, _: *mut ngx_command_t, conf: *mut c_void) -> *mut c_char {
    catch_panic(CONF_ERROR, || {
        // SAFETY: `read_block` has passed its closure and is still running.
        let f = unsafe { &mut *conf.cast::<&mut dyn FnMut(&[&str]) -> Result<(), ConfigError>>() };
        // SAFETY: nginx passes its parser for the duration of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        parser.apply(false, |words, _| f(words))
    })
}

/// A location of the configuration.
pub(in crate::nginx) struct Location<'c> {
    raw: *mut ngx_http_core_loc_conf_t,
    life: PhantomData<&'c ngx_http_core_loc_conf_t>,
}

impl<'c> Location<'c> {
    pub(super) fn as_ref(&self) -> &'c ngx_http_core_loc_conf_t {
        // SAFETY: owned by nginx, alive as long as the configuration; the reference ends before it is written.
        unsafe { &*self.raw }
    }

    /// Name in the configuration.
    pub fn name(&self) -> &'c [u8] {
        // SAFETY: a string of the configuration.
        unsafe { pool::bytes(self.as_ref().name) }
    }

    /// Whether this is an unnamed block inside a location: `if`, `limit_except`.
    pub fn is_unnamed(&self) -> bool {
        self.as_ref().noname() != 0
    }

    /// Whether the location has only one path: `location = /path`.
    pub fn is_exact(&self) -> bool {
        self.as_ref().exact_match() != 0
    }

    /// Whether this is a `location @name`.
    pub fn is_named(&self) -> bool {
        self.as_ref().named() != 0
    }

    /// Whether the name is a regular expression.
    pub fn is_regex(&self) -> bool {
        #[cfg(ngx_feature = "pcre")]
        return !self.as_ref().regex.is_null();
        #[cfg(not(ngx_feature = "pcre"))]
        return false;
    }

    /// Makes `H` the content handler of the location.
    pub fn set_handler<H: Handler>(&mut self) {
        // SAFETY: owned by nginx and alive as long as the configuration; nothing else accesses it now.
        unsafe { (*self.raw).handler = Some(handler::<H>) };
    }
}
