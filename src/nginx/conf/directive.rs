//! Directives that need nothing but their arguments, as nginx calls them.

use crate::directive::location::LocationOptions;
use crate::directive::{Directive, DirectiveError};
use crate::nginx::ffi::config_error::ConfigError;
use crate::nginx::ffi::directive::{Command, LocationLevel};
use crate::nginx::ffi::module::LocationConf;
use crate::nginx::ffi::parser::Parser;

impl From<DirectiveError> for ConfigError {
    fn from(error: DirectiveError) -> Self {
        Self::Message(error.to_string())
    }
}

impl<D: Directive<Conf = LocationOptions>> Command for D {
    const DIRECTIVE: &'static str = D::NAME;
    type Level = LocationLevel;

    fn run(conf: &mut LocationConf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        match D::ONLY_IN_LOCATIONS {
            Some(text) if !parser.is_in_location() => Err(text.into()),
            _ => Ok(D::apply(&mut conf.options, args)?),
        }
    }
}
