//! Directives of a table that say when its proxy should not be used: `ready_max_age`, `drain_file`.

use std::time::Duration;

use super::{Directive, DirectiveError, absolute, duration, set_once, single_value};
use crate::admin::readiness::ReadyLimits;

/// The age of a table is known in seconds.
const MIN_MAX_AGE: Duration = Duration::from_secs(1);

/// `ready_max_age TIME;`
pub struct ReadyMaxAge;

impl Directive for ReadyMaxAge {
    const NAME: &'static str = "ready_max_age";
    type Conf = ReadyLimits;

    fn apply(conf: &mut ReadyLimits, args: &[&str]) -> Result<(), DirectiveError> {
        let (directive, example) = (Self::NAME, "10m");
        let value = duration(args, directive, example)?;
        if value < MIN_MAX_AGE {
            let what = "duration (at least 1s)";
            return Err(DirectiveError::Invalid { directive, what, value: args.concat(), example });
        }
        set_once(&mut conf.max_age, directive, value)
    }
}

/// `drain_file PATH;`
pub struct DrainFile;

impl Directive for DrainFile {
    const NAME: &'static str = "drain_file";
    type Conf = ReadyLimits;

    fn apply(conf: &mut ReadyLimits, args: &[&str]) -> Result<(), DirectiveError> {
        let path = single_value(args, Self::NAME, "drain_file /run/urlproxy/out-of-service;")?;
        let path = absolute(path, Self::NAME, "/run/urlproxy/out-of-service")?;
        set_once(&mut conf.drain_file, Self::NAME, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_off_unless_set() {
        let mut limits = ReadyLimits::default();
        assert_eq!((limits.max_age, limits.drain_file.as_ref()), (None, None));
        ReadyMaxAge::apply(&mut limits, &["10m"]).unwrap();
        DrainFile::apply(&mut limits, &["/run/x"]).unwrap();
        assert_eq!((limits.max_age, limits.drain_file), (Some(Duration::from_secs(600)), Some("/run/x".into())));
    }

    #[test]
    fn error_names_the_wrong_value_and_an_example() {
        let age = |args: &[&str]| ReadyMaxAge::apply(&mut ReadyLimits::default(), args).unwrap_err().to_string();
        let file = |args: &[&str]| DrainFile::apply(&mut ReadyLimits::default(), args).unwrap_err().to_string();
        for (error, want) in [
            (age(&["soon"]), r#""ready_max_age" invalid duration "soon", expected e.g. "10m""#),
            (age(&["0"]), r#""ready_max_age" invalid duration (at least 1s) "0", expected e.g. "10m""#),
            (age(&["999ms"]), r#""ready_max_age" invalid duration (at least 1s) "999ms", expected e.g. "10m""#),
            (age(&[]), r#""ready_max_age" takes one value, e.g. "10m""#),
            (file(&[]), r#""drain_file" takes one value, e.g. "drain_file /run/urlproxy/out-of-service;""#),
        ] {
            assert_eq!(error, want);
        }
        // A directory would always exist.
        for path in ["", "out-of-service", "/", "/run/urlproxy/", "/run/urlproxy/.", "/run/urlproxy/.."] {
            let want = format!(
                r#""drain_file" invalid path of a file (absolute) "{path}", expected e.g. "/run/urlproxy/out-of-service""#
            );
            assert_eq!(file(&[path]), want);
        }
    }
}
