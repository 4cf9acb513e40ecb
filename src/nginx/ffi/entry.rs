//! What nginx calls for a configuration and for processes: each makes a handle and goes on in safe code.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use nginx_sys::{ngx_conf_t, ngx_cycle_t, ngx_int_t};
use ngx::core::Status;

use super::config_error::{CONF_ERROR, CONF_OK, ConfigError};
use super::cycle::Cycle;
use super::module::{LocationConf, MainConf};
use super::panic_guard::catch_panic;
use super::parser::Parser;

/// What this module does while a configuration is read, and in the life of a process.
pub(in crate::nginx) trait Hooks {
    /// Before the http block is read.
    fn before_configuration(parser: &mut Parser<'_>) -> Option<()>;

    /// Once the http block is read; `former` is this module's of the configuration in force.
    fn after_configuration(parser: &mut Parser<'_>, main: &MainConf, former: Option<&MainConf>) -> Option<()>;

    /// Fills in what a location does not say from the level above.
    fn merge(
        parser: &mut Parser<'_>,
        main: &MainConf,
        above: &LocationConf,
        conf: &mut LocationConf,
    ) -> Result<(), ConfigError>;

    /// In the master, once the configuration is good and the sockets are open.
    fn init_module(cycle: Cycle<'_>);

    /// In each process, at its start.
    fn init_process(cycle: Cycle<'_>);

    /// In each process, at its end.
    fn exit_process();
}

pub(in crate::nginx) unsafe extern "C" fn preconfiguration<H: Hooks>(cf: *mut ngx_conf_t) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes its parser, for the time of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        H::before_configuration(&mut parser).map_or(Status::NGX_ERROR, |()| Status::NGX_OK)
    })
    .0
}

pub(in crate::nginx) unsafe extern "C" fn postconfiguration<H: Hooks>(cf: *mut ngx_conf_t) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes its parser, for the time of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        // SAFETY: nothing has a reference to it that could be written through, now that the block is read.
        let Some(main) = (unsafe { parser.main_conf() }) else { return Status::NGX_ERROR };
        let former = parser.old_cycle().and_then(Cycle::main_conf);
        H::after_configuration(&mut parser, main, former).map_or(Status::NGX_ERROR, |()| Status::NGX_OK)
    })
    .0
}

pub(in crate::nginx) unsafe extern "C" fn merge_loc_conf<H: Hooks>(
    cf: *mut ngx_conf_t,
    above: *mut c_void,
    conf: *mut c_void,
) -> *mut c_char {
    catch_panic(CONF_ERROR, || {
        // SAFETY: nginx passes its parser, for the time of the call.
        let mut parser = unsafe { Parser::from_raw(cf) };
        // SAFETY: nothing has a reference to it that could be written through, now that the block is read.
        let Some(main) = (unsafe { parser.main_conf() }) else { return CONF_ERROR };
        // SAFETY: nginx passes two levels that `create_loc_conf` made, never the same.
        let above = unsafe { &*above.cast::<LocationConf>() };
        // SAFETY: as for `above`; nothing else refers to it during the call.
        let conf = unsafe { &mut *conf.cast::<LocationConf>() };
        match H::merge(&mut parser, main, above, conf) {
            Ok(()) => CONF_OK,
            Err(error) => parser.log_error(&error),
        }
    })
}

/// Never an error: nginx would end the master of a running site over it.
pub(in crate::nginx) unsafe extern "C" fn init_module<H: Hooks>(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the cycle that it is about to run.
    with_cycle(unsafe { Cycle::from_raw(cycle) }, H::init_module)
}

/// Never an error: nginx would not start the worker again.
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
