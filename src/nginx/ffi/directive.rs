//! Calls safe code for a directive: one trampoline for all directives.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

use nginx_sys::{
    NGX_DIRECT_CONF, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF_OFFSET, NGX_MAIN_CONF, ngx_command_t, ngx_conf_t,
    ngx_str_t, ngx_uint_t,
};

use super::config_error::{CONF_ERROR, ConfigError};
use super::module;
use super::panic_guard::catch_panic;
use super::parser::Parser;

/// The configuration level that a directive writes to.
pub(in crate::nginx) trait Level {
    /// The settings of this level.
    type Conf;
    /// The offset of the level in nginx's configuration context.
    const OFFSET: usize;
}

/// The http block; directives inside an upstream write here too.
pub(in crate::nginx) struct MainLevel;

impl Level for MainLevel {
    type Conf = module::MainConf;
    const OFFSET: usize = NGX_HTTP_MAIN_CONF_OFFSET;
}

/// Locations and the levels above.
pub(in crate::nginx) struct LocationLevel;

impl Level for LocationLevel {
    type Conf = module::LocationConf;
    const OFFSET: usize = NGX_HTTP_LOC_CONF_OFFSET;
}

/// A directive as called by nginx.
pub(in crate::nginx) trait Command {
    /// Name in the configuration.
    const DIRECTIVE: &'static str;
    /// The level that it writes to.
    type Level: Level;
    /// Whether arguments may be any bytes. If so, [`Command::run`] gets them with invalid UTF-8 replaced.
    const TAKES_BYTES: bool = false;

    /// Applies the arguments after the name.
    fn run(conf: &mut <Self::Level as Level>::Conf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError>;
}

/// Space for the longest directive name and the terminating zero byte that nginx requires.
const NAME_BYTES: usize = 24;

struct Name<C>(PhantomData<C>);

impl<C: Command> Name<C> {
    const BYTES: &'static [u8; NAME_BYTES] = &{
        let (name, mut bytes, mut at) = (C::DIRECTIVE.as_bytes(), [0; NAME_BYTES], 0);
        assert!(name.len() < NAME_BYTES);
        while at < name.len() {
            bytes[at] = name[at];
            at += 1;
        }
        bytes
    };
}

/// The entry of a directive in nginx's command table. `flags` are the contexts and the number of arguments.
pub(in crate::nginx) const fn command<C: Command>(flags: u32) -> ngx_command_t {
    assert!(
        flags & (NGX_MAIN_CONF | NGX_DIRECT_CONF) == 0,
        "nginx would pass another pointer than the settings of the level"
    );
    ngx_command_t {
        name: ngx_str_t { len: C::DIRECTIVE.len(), data: Name::<C>::BYTES.as_ptr().cast_mut() },
        type_: flags as ngx_uint_t,
        set: Some(set::<C>),
        conf: <C::Level as Level>::OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    }
}

unsafe extern "C" fn set<C: Command>(cf: *mut ngx_conf_t, _: *mut ngx_command_t, conf: *mut c_void) -> *mut c_char {
    catch_panic(CONF_ERROR, || {
        // SAFETY: nginx passes the settings that this module created for the level, with that type, and does not use them
        // during the call.
        let conf = unsafe { &mut *conf.cast::<<C::Level as Level>::Conf>() };
        // SAFETY: nginx passes its parser for the duration of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        parser.apply(C::TAKES_BYTES, |words, parser| C::run(conf, words.get(1..).unwrap_or_default(), parser))
    })
}
