//! The directives of the nginx module: their arguments become settings, or an error with the wrong value and an example.
//!
//! Independent of nginx. One type per directive; `nginx/conf` has those that need nginx's parser, and names all of them to nginx.

pub mod location;
pub mod moved;
pub mod pages;
pub mod ready;
pub mod table;
pub mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use crate::units::parse_duration;

/// A directive that needs nothing but its arguments.
pub trait Directive {
    /// Name in the configuration.
    const NAME: &'static str;
    /// Settings that the directive writes to.
    type Conf;
    /// The error outside of a location, for a directive that `directives!` allows in more contexts than it works in.
    const ONLY_IN_LOCATIONS: Option<&'static str> = None;

    /// Parses the arguments after the name.
    ///
    /// # Errors
    /// An invalid value, too many or too few, or a second use on the same level.
    fn apply(conf: &mut Self::Conf, args: &[&str]) -> Result<(), DirectiveError>;
}

/// An invalid directive. nginx adds file and line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectiveError {
    /// A wrong value.
    #[error("\"{directive}\" invalid {what} \"{value}\", expected e.g. \"{example}\"")]
    Invalid {
        /// The directive.
        directive: &'static str,
        /// What the value should be.
        what: &'static str,
        /// The value.
        value: String,
        /// A right one.
        example: &'static str,
    },
    /// Too many or too few values.
    #[error("\"{directive}\" takes {takes}, e.g. \"{example}\"")]
    Arguments {
        /// The directive.
        directive: &'static str,
        /// What it takes.
        takes: &'static str,
        /// A right use.
        example: &'static str,
    },
    /// A second use on the same level.
    #[error("\"{0}\" is duplicate")]
    Duplicate(&'static str),
    /// Anything else, as a whole sentence.
    #[error("{0}")]
    Other(String),
}

/// Sets a value that may be set only once.
fn set_once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), DirectiveError> {
    if slot.is_some() {
        return Err(DirectiveError::Duplicate(name));
    }
    *slot = Some(value);
    Ok(())
}

/// The only argument of a directive.
fn single_value<'a>(
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
fn duration(args: &[&str], directive: &'static str, example: &'static str) -> Result<Duration, DirectiveError> {
    let value = single_value(args, directive, example)?;
    let invalid = || DirectiveError::Invalid { directive, what: "duration", value: value.into(), example };
    parse_duration(value).ok_or_else(invalid)
}

/// Parses the absolute path of a file: it must not depend on the working directory of nginx.
fn absolute(text: &str, directive: &'static str, example: &'static str) -> Result<PathBuf, DirectiveError> {
    let path = PathBuf::from(text);
    let is_directory = text.ends_with('/') || text.ends_with("/.") || path.file_name().is_none();
    let invalid =
        || DirectiveError::Invalid { directive, what: "path of a file (absolute)", value: text.into(), example };
    if path.is_absolute() && !is_directory { Ok(path) } else { Err(invalid()) }
}
