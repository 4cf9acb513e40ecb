//! The module's hooks: configuration steps, process start and exit.

use nginx_sys::{
    ngx_http_phases_NGX_HTTP_ACCESS_PHASE as ACCESS_PHASE, ngx_http_phases_NGX_HTTP_LOG_PHASE as LOG_PHASE,
    ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE as PRECONTENT_PHASE,
};

use super::conf::checks;
use super::conf::location::LocationConf;
use super::conf::main::MainConf;
use super::conf::pages::admin_prefix;
use super::conf::routed::RoutedLocation;
use super::ffi::config_error::ConfigError;
use super::ffi::cycle::Cycle;
use super::ffi::entry::Hooks;
use super::ffi::module::Module;
use super::ffi::parser::{Parser, Push};
use super::lifecycle;
use super::request::access::{Access, BeforeContent};
use super::request::admin::Admin;
use super::request::counters::CountRequest;
use super::request::final_response::FinalResponses;
use super::request::list::List;
use super::request::variables::VARIABLES;

impl Hooks for Module {
    fn before_configuration(parser: &mut Parser<'_>) -> Option<()> {
        VARIABLES.iter().try_for_each(|variable| parser.add_variable(variable))
    }

    fn after_configuration(parser: &mut Parser<'_>, main: &MainConf, old: Option<&MainConf>) -> Option<()> {
        if let Some(old) = old {
            main.find_predecessors(old);
        }
        main.set_listeners(&parser.listeners());
        if main.tables().next().is_some() {
            parser.add_header_filter::<FinalResponses>();
        }
        parser.add_handler::<Access>(ACCESS_PHASE, Push::Back)?;
        // Runs last in its phase, after `try_files`, which changes the path.
        parser.add_handler::<BeforeContent>(PRECONTENT_PHASE, Push::Front)?;
        parser.add_handler::<CountRequest>(LOG_PHASE, Push::Back)
    }

    fn merge(
        parser: &mut Parser<'_>,
        main: &MainConf,
        above: &LocationConf,
        conf: &mut LocationConf,
    ) -> Result<(), ConfigError> {
        let mut location = parser.location().ok_or("no location at this level")?;
        let has_urlproxy = conf.options.has_urlproxy();
        conf.merge(above, location.is_unnamed(), |name| main.table(name).cloned())?;
        // nginx merges its own modules before this one, so their settings are final here.
        checks::warn(parser, main, conf);
        // Other unnamed blocks decide like their location.
        if conf.table().is_some() && (has_urlproxy || !location.is_unnamed()) {
            let server = parser.server().ok_or("no server at this level")?;
            main.add_routed(RoutedLocation::new(server, &location, conf));
        }
        if conf.list.is_some() {
            location.set_handler::<List>();
        }
        if conf.admin.is_some() {
            conf.admin_prefix = admin_prefix(conf, &location)?;
            location.set_handler::<Admin>();
        }
        Ok(())
    }

    fn init_module(cycle: Cycle<'_>) {
        lifecycle::init_module(cycle);
    }

    fn init_process(cycle: Cycle<'_>) {
        lifecycle::init_process(cycle);
    }

    fn exit_process() {
        lifecycle::exit_process();
    }
}
