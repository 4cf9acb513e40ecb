//! A directive's way from nginx to safe code: one function for all of them.
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

/// The level of the configuration that a directive writes to.
pub(in crate::nginx) trait Level {
    /// What this module keeps there.
    type Conf;
    /// Where nginx finds it.
    const OFFSET: usize;
}

/// The http block, for what is inside an upstream too.
pub(in crate::nginx) struct MainLevel;

impl Level for MainLevel {
    type Conf = module::MainConf;
    const OFFSET: usize = NGX_HTTP_MAIN_CONF_OFFSET;
}

/// Locations, and the levels above.
pub(in crate::nginx) struct LocationLevel;

impl Level for LocationLevel {
    type Conf = module::LocationConf;
    const OFFSET: usize = NGX_HTTP_LOC_CONF_OFFSET;
}

/// A directive as nginx calls it.
pub(in crate::nginx) trait Command {
    /// As it is written.
    const DIRECTIVE: &'static str;
    /// What it writes to.
    type Level: Level;
    /// Whether its arguments may be any bytes; then [`Command::run`] gets them as far as they are UTF-8.
    const TAKES_BYTES: bool = false;

    /// Takes the arguments that follow the name.
    ///
    /// # Errors
    /// Why they are refused.
    fn run(conf: &mut <Self::Level as Level>::Conf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError>;
}

/// The longest name of a directive, and the zero byte that nginx wants behind it.
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

/// The line of a directive in nginx's table; `flags` say where it may stand, and with how many arguments.
pub(in crate::nginx) const fn command<C: Command>(flags: u32) -> ngx_command_t {
    assert!(flags & (NGX_MAIN_CONF | NGX_DIRECT_CONF) == 0, "nginx would pass something else than the level's");
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
        // SAFETY: nginx passes what this module made for the level, of the type that belongs to it, and lets nobody else at
        // it during the call.
        let conf = unsafe { &mut *conf.cast::<<C::Level as Level>::Conf>() };
        // SAFETY: nginx passes its parser, for the time of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        parser.apply(C::TAKES_BYTES, |words, parser| C::run(conf, words.get(1..).unwrap_or_default(), parser))
    })
}
