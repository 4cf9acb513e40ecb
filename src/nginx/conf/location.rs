//! The settings of a location, and `urlproxy_hash`.

use std::ptr;
use std::rc::Rc;

use super::table::TableConf;
use crate::directive::location::{LocationOptions, Urlproxy};
use crate::directive::{Directive, DirectiveError};
use crate::nginx::ffi::complex_value::ComplexValue;
use crate::nginx::ffi::config_error::ConfigError;
use crate::nginx::ffi::directive::{Command, LocationLevel};
use crate::nginx::ffi::parser::Parser;

/// The settings of one level, merged with the level above.
#[derive(Clone, Default)]
pub(in crate::nginx) struct LocationConf {
    /// What needs no nginx.
    pub options: LocationOptions,
    /// Requests with the same value go to the same backend.
    pub hash: Option<Rc<ComplexValue>>,
    /// The table of `urlproxy`.
    table: Option<Rc<TableConf>>,
    /// The table of `urlproxy_list`.
    pub list: Option<Rc<TableConf>>,
    /// The table of `urlproxy_admin`.
    pub admin: Option<Rc<TableConf>>,
    /// The location of `urlproxy_admin`, without a slash at its end.
    pub admin_prefix: String,
}

impl LocationConf {
    /// Inherits unset values from the level above, and finds the tables by name.
    pub fn merge(
        &mut self,
        above: &Self,
        is_unnamed: bool,
        find: impl Fn(&str) -> Option<Rc<TableConf>>,
    ) -> Result<(), DirectiveError> {
        let find_table = |name: Option<&str>, directive| match name {
            None => Ok(None),
            Some(name) => find(name).map(Some).ok_or_else(|| {
                DirectiveError::Other(format!(
                    "\"{directive}\" names table \"{name}\", but there is no \"urlproxy_table {name}\""
                ))
            }),
        };
        self.options.inherit(&above.options, is_unnamed);
        if self.hash.is_none() {
            self.hash.clone_from(&above.hash);
        }
        self.list = find_table(self.options.listed.as_deref(), "urlproxy_list")?;
        self.admin = find_table(self.options.administered.as_deref(), "urlproxy_admin")?;
        self.table = find_table(self.options.routing().map(|(table, _)| table.as_str()), Urlproxy::NAME)?;
        Ok(())
    }

    /// Whether both locations resolve the same URI to the same route, so that a stored route stays valid.
    pub fn resolves_like(&self, other: &Self) -> bool {
        let is_same_table = match (self.table(), other.table()) {
            (Some(one), Some(other)) => ptr::eq(one, other),
            _ => false,
        };
        let is_same_hash = match (&self.hash, &other.hash) {
            (Some(one), Some(other)) => one == other || one.text() == other.text(),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same_table
            && self.options.mode() == other.options.mode()
            && self.options.default_route() == other.options.default_route()
            && self.options.canonical() == other.options.canonical()
            && self.options.moved() == other.options.moved()
            && is_same_hash
    }

    /// The table of this location's `urlproxy`.
    #[inline(always)]
    pub fn table(&self) -> Option<&TableConf> {
        self.table.as_deref()
    }
}

/// `urlproxy_hash TEXT;`
pub(in crate::nginx) struct UrlproxyHash;

impl Command for UrlproxyHash {
    const DIRECTIVE: &'static str = "urlproxy_hash";
    type Level = LocationLevel;
    const TAKES_BYTES: bool = true;

    fn run(conf: &mut LocationConf, _: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        if conf.hash.is_some() {
            return Err(DirectiveError::Duplicate(Self::DIRECTIVE).into());
        }
        conf.hash = Some(Rc::new(parser.compile_argument()?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_urlproxy(args: &[&str]) -> LocationConf {
        let mut conf = LocationConf::default();
        Urlproxy::apply(&mut conf.options, args).unwrap();
        conf
    }

    #[test]
    fn unknown_table_is_named_in_the_error() {
        let mut conf = with_urlproxy(&["tols", "path"]);
        let error = conf.merge(&LocationConf::default(), false, |_| None).unwrap_err().to_string();
        assert_eq!(error, r#""urlproxy" names table "tols", but there is no "urlproxy_table tols""#);
    }

    #[test]
    fn only_unnamed_blocks_inherit_the_table() {
        let above = with_urlproxy(&["tools", "path"]);
        let merged =
            |mut conf: LocationConf, is_unnamed| conf.merge(&above, is_unnamed, |_| None).map_err(|e| e.to_string());
        assert!(merged(LocationConf::default(), true).unwrap_err().contains("table \"tools\""));
        assert_eq!(merged(LocationConf::default(), false), Ok(()));
        assert_eq!(merged(with_urlproxy(&["off"]), true), Ok(()));
    }
}
