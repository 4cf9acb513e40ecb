//! Directives that make a location serve a page of this module: `urlproxy_list`, `urlproxy_admin`.

use super::location::LocationOptions;
use super::{Directive, DirectiveError, set_once};

/// `urlproxy_list TABLE;`
pub struct UrlproxyList;

impl Directive for UrlproxyList {
    const NAME: &'static str = "urlproxy_list";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        set_once(&mut conf.listed, Self::NAME, single_table(args, Self::NAME, "urlproxy_list tools;")?)
    }
}

/// `urlproxy_admin TABLE;`
pub struct UrlproxyAdmin;

impl Directive for UrlproxyAdmin {
    const NAME: &'static str = "urlproxy_admin";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        set_once(&mut conf.administered, Self::NAME, single_table(args, Self::NAME, "urlproxy_admin tools;")?)
    }
}

fn single_table(args: &[&str], directive: &'static str, example: &'static str) -> Result<String, DirectiveError> {
    match args {
        [table] => Ok((*table).to_owned()),
        _ => Err(DirectiveError::Arguments { directive, takes: "a table", example }),
    }
}
