//! The directive trait: one type per directive, which parses the arguments or returns an error.

use std::path::PathBuf;
use std::time::Duration;

use crate::nginx::ffi::config_error::ConfigError;
use crate::nginx::ffi::directive::{Command, LocationLevel};
use crate::nginx::ffi::module::LocationConf;
use crate::nginx::ffi::parser::Parser;
use crate::units::parse_duration;

/// A directive that needs nothing but its arguments.
pub(in crate::nginx) trait Directive {
    /// Name in the configuration.
    const NAME: &'static str;
    /// Settings that the directive writes to.
    type Conf;

    /// Checks the context, beyond the contexts that `directives!` allows. The error names the allowed contexts.
    fn check_place(_: &Parser<'_>) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Parses the arguments after the name.
    fn apply(conf: &mut Self::Conf, args: &[&str]) -> Result<(), DirectiveError>;
}

/// An invalid directive. nginx adds file and line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::nginx) enum DirectiveError {
    #[error("\"{directive}\" invalid {what} \"{value}\", expected e.g. \"{example}\"")]
    Invalid { directive: &'static str, what: &'static str, value: String, example: &'static str },
    #[error("\"{directive}\" takes {takes}, e.g. \"{example}\"")]
    Arguments { directive: &'static str, takes: &'static str, example: &'static str },
    #[error("\"{0}\" is duplicate")]
    Duplicate(&'static str),
    #[error("{0}")]
    Other(String),
}

/// Sets a value that may be set only once.
pub(in crate::nginx) fn set_once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), DirectiveError> {
    if slot.is_some() {
        return Err(DirectiveError::Duplicate(name));
    }
    *slot = Some(value);
    Ok(())
}

/// The only argument of a directive.
pub(super) fn single_value<'a>(
    args: &[&'a str],
    directive: &'static str,
    example: &'static str,
) -> Result<&'a str, DirectiveError> {
    match args {
        [value] => Ok(value),
        _ => Err(DirectiveError::Arguments { directive, takes: "one value", example }),
    }
}

/// The only argument of a directive, as a duration.
pub(super) fn duration(
    args: &[&str],
    directive: &'static str,
    example: &'static str,
) -> Result<Duration, DirectiveError> {
    let value = single_value(args, directive, example)?;
    let invalid = || DirectiveError::Invalid { directive, what: "duration", value: value.into(), example };
    parse_duration(value).ok_or_else(invalid)
}

/// Parses the absolute path of a file: it must not depend on the working directory of nginx.
pub(super) fn absolute(text: &str, directive: &'static str, example: &'static str) -> Result<PathBuf, DirectiveError> {
    let path = PathBuf::from(text);
    let is_directory = text.ends_with('/') || text.ends_with("/.") || path.file_name().is_none();
    let invalid = || DirectiveError::Invalid { directive, what: "path (absolute)", value: text.into(), example };
    if path.is_absolute() && !is_directory { Ok(path) } else { Err(invalid()) }
}

impl From<DirectiveError> for ConfigError {
    fn from(error: DirectiveError) -> Self {
        Self::Message(error.to_string())
    }
}

impl<D: Directive<Conf = LocationConf>> Command for D {
    const DIRECTIVE: &'static str = D::NAME;
    type Level = LocationLevel;

    fn run(conf: &mut LocationConf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        D::check_place(parser)?;
        Ok(D::apply(conf, args)?)
    }
}
