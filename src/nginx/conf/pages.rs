//! The locations of `urlproxy_admin`.

use super::location::LocationConf;
use crate::directive::DirectiveError;
use crate::nginx::ffi::parser::Location;

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
