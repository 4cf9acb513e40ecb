//! Entry points for configuration and process events: each creates a handle and calls safe code.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use nginx_sys::{ngx_conf_t, ngx_cycle_t, ngx_int_t};
use ngx::core::Status;

use super::config_error::{CONF_ERROR, CONF_OK, ConfigError};
use super::cycle::Cycle;
use super::module::{LocationConf, MainConf};
use super::panic_guard::catch_panic;
use super::parser::Parser;

/// The module's hooks for configuration and process events.
pub(in crate::nginx) trait Hooks {
    /// Runs before nginx reads the http block.
    fn before_configuration(parser: &mut Parser<'_>) -> Option<()>;

    /// Runs after the http block is read. `old` are the settings of the current configuration.
    fn after_configuration(parser: &mut Parser<'_>, main: &MainConf, old: Option<&MainConf>) -> Option<()>;

    /// Merges the settings of a location with the level above.
    fn merge(
        parser: &mut Parser<'_>,
        main: &MainConf,
        above: &LocationConf,
        conf: &mut LocationConf,
    ) -> Result<(), ConfigError>;

    /// Runs in the master, after the configuration is accepted and the sockets are open.
    fn init_module(cycle: Cycle<'_>);

    /// Runs in each process at start.
    fn init_process(cycle: Cycle<'_>);

    /// Runs in each process at exit.
    fn exit_process();
}

pub(in crate::nginx) unsafe extern "C" fn preconfiguration<H: Hooks>(cf: *mut ngx_conf_t) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes its parser for the duration of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        H::before_configuration(&mut parser).map_or(Status::NGX_ERROR, |()| Status::NGX_OK)
    })
    .0
}

pub(in crate::nginx) unsafe extern "C" fn postconfiguration<H: Hooks>(cf: *mut ngx_conf_t) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes its parser for the duration of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        // SAFETY: no mutable reference to it exists after the block is read.
        let Some(main) = (unsafe { parser.main_conf() }) else { return Status::NGX_ERROR };
        let old = parser.old_cycle().and_then(Cycle::main_conf);
        H::after_configuration(&mut parser, main, old).map_or(Status::NGX_ERROR, |()| Status::NGX_OK)
    })
    .0
}

pub(in crate::nginx) unsafe extern "C" fn merge_loc_conf<H: Hooks>(
    cf: *mut ngx_conf_t,
    above: *mut c_void,
    conf: *mut c_void,
) -> *mut c_char {
    catch_panic(CONF_ERROR, || {
        // SAFETY: nginx passes its parser for the duration of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        // SAFETY: no mutable reference to it exists after the block is read.
        let Some(main) = (unsafe { parser.main_conf() }) else { return CONF_ERROR };
        // SAFETY: nginx passes two different levels, both created by `create_loc_conf`.
        let above = unsafe { &*above.cast::<LocationConf>() };
        // SAFETY: as for `above`; nothing else refers to it during the call.
        let conf = unsafe { &mut *conf.cast::<LocationConf>() };
        match H::merge(&mut parser, main, above, conf) {
            Ok(()) => CONF_OK,
            Err(error) => parser.log_error(&error),
        }
    })
}

/// Never returns an error: nginx would exit the master of a running site.
pub(in crate::nginx) unsafe extern "C" fn init_module<H: Hooks>(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the cycle that it is about to run.
    with_cycle(unsafe { Cycle::from_raw(cycle) }, H::init_module)
}

/// Never returns an error: nginx would not restart the worker.
pub(in crate::nginx) unsafe extern "C" fn init_process<H: Hooks>(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the cycle that it runs.
    with_cycle(unsafe { Cycle::from_raw(cycle) }, H::init_process)
}

fn with_cycle(cycle: Option<Cycle<'_>>, f: fn(Cycle<'_>)) -> ngx_int_t {
    catch_panic((), || cycle.into_iter().for_each(f));
    Status::NGX_OK.0
}

pub(in crate::nginx) unsafe extern "C" fn exit_process<H: Hooks>(_: *mut ngx_cycle_t) {
    catch_panic((), H::exit_process);
}
