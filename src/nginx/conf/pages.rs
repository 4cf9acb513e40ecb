//! Directives that make a location serve a page of this module: `urlproxy_list`, `urlproxy_admin`.

use super::directive::{Directive, DirectiveError, set_once};
use super::location::LocationConf;
use crate::nginx::ffi::parser::Location;

/// `urlproxy_list TABLE;`
pub(in crate::nginx) struct UrlproxyList;

impl Directive for UrlproxyList {
    const NAME: &'static str = "urlproxy_list";
    type Conf = LocationConf;

    fn apply(conf: &mut LocationConf, args: &[&str]) -> Result<(), DirectiveError> {
        set_once(&mut conf.listed, Self::NAME, single_table(args, Self::NAME, "urlproxy_list tools;")?)
    }
}

/// `urlproxy_admin TABLE;`
pub(in crate::nginx) struct UrlproxyAdmin;

impl Directive for UrlproxyAdmin {
    const NAME: &'static str = "urlproxy_admin";
    type Conf = LocationConf;

    fn apply(conf: &mut LocationConf, args: &[&str]) -> Result<(), DirectiveError> {
        set_once(&mut conf.administered, Self::NAME, single_table(args, Self::NAME, "urlproxy_admin tools;")?)
    }
}

fn single_table(args: &[&str], directive: &'static str, example: &'static str) -> Result<String, DirectiveError> {
    match args {
        [table] => Ok((*table).to_owned()),
        _ => Err(DirectiveError::Arguments { directive, takes: "a table", example }),
    }
}

/// Finds the prefix that the paths of `urlproxy_admin`'s pages follow: the location's name without a slash at its end.
pub(in crate::nginx) fn admin_prefix(conf: &LocationConf, location: &Location<'_>) -> Result<String, DirectiveError> {
    if conf.list.is_some() {
        let text = "\"urlproxy_admin\" and \"urlproxy_list\" in one location, expected one of them";
        return Err(DirectiveError::Other(text.into()));
    }
    let name = String::from_utf8_lossy(location.name());
    if location.is_exact() || !name.starts_with('/') {
        let text = format!(
            "\"urlproxy_admin\" in location \"{name}\", which has no paths below it, expected e.g. \"location / {{ \
             urlproxy_admin tools; }}\""
        );
        return Err(DirectiveError::Other(text));
    }
    Ok(name.trim_end_matches('/').to_owned())
}
