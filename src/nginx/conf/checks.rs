//! Configuration warnings about locations that do not separate tenants.

use nginx_sys::NGX_LOG_WARN;

use super::location::LocationConf;
use super::main::MainConf;
use crate::directive::location::Mode;
use crate::nginx::ffi::parser::Parser;
use crate::nginx::ffi::proxy::ProxyConf;

/// Warns of problems in the location that nginx has just merged. The proxy module's settings are already merged.
pub(in crate::nginx) fn warn(parser: &mut Parser<'_>, main: &MainConf, conf: &LocationConf) {
    let Some(location) = parser.location() else { return };
    let mode = conf.table().map(|_| conf.options.mode());
    let mut texts = if mode.is_none() { unrouted_upstreams(parser, main) } else { Vec::new() };
    if let Some(module) = main.proxy.get_or_init(|| parser.find_proxy()) {
        texts.extend(parser.proxy_conf(module).iter().flat_map(|proxy| find_problems(main, mode, proxy)));
    }
    if texts.is_empty() {
        return;
    }
    let name = String::from_utf8_lossy(location.name());
    let place = parser.server_place().map(|(file, line)| format!(" of the server in {file}:{line}"));
    let place = place.unwrap_or_default();
    for text in texts {
        parser.log().write(NGX_LOG_WARN, &format!("{text}, in location \"{name}\"{place}"));
    }
}

/// Directives other than `proxy_pass` that pass to `urlproxy_peers` in a location without `urlproxy`.
fn unrouted_upstreams(parser: &mut Parser<'_>, main: &MainConf) -> Vec<String> {
    let upstreams = parser.other_upstreams().into_iter();
    upstreams.filter(|(_, upstream)| main.upstream(*upstream).is_some()).map(|(by, _)| missing_urlproxy(by)).collect()
}

/// Problems of a location with `proxy_pass`. `mode` is the mode of its `urlproxy`.
fn find_problems(main: &MainConf, mode: Option<&Mode>, proxy: &ProxyConf<'_>) -> Vec<String> {
    let upstream = proxy.upstream();
    let passes_to_peers = upstream.is_some_and(|upstream| main.upstream(upstream).is_some());
    let Some(mode) = mode else {
        return passes_to_peers.then(|| missing_urlproxy("proxy_pass")).into_iter().collect();
    };
    // A `proxy_pass` with variables names one of our upstreams or the backend itself.
    if !passes_to_peers && (upstream.is_some() || !main.has_upstreams()) {
        return Vec::new();
    }
    let is_default_host =
        proxy.header(b"host").is_none_or(|host| variable_names(host).any(|name| name == b"proxy_host"));
    let mixes_pages = proxy.cache_key().is_some_and(|key| !separates_tenants(key, mode));
    let host = is_default_host.then_some(DEFAULT_HOST);
    let key = mixes_pages.then_some(SHARED_PAGES);
    host.into_iter().chain(key).map(str::to_owned).collect()
}

fn missing_urlproxy(directive: &str) -> String {
    format!(
        "\"{directive}\" leads to an upstream with \"urlproxy_peers\", but the location has no \"urlproxy\": \
         its requests will fail, expected e.g. \"urlproxy tools path;\""
    )
}

const DEFAULT_HOST: &str = "backends get the upstream's name as \"Host\", the same for all tenants, expected e.g. \
     \"proxy_set_header Host $host;\"";
const SHARED_PAGES: &str = "\"proxy_cache\" may send one tenant's pages to another's visitors, expected e.g. \
     \"proxy_cache_key $scheme$host$request_uri;\"";

/// Whether the cache key differs between tenants.
fn separates_tenants(key: &[u8], mode: &Mode) -> bool {
    variable_names(key).any(|name| match name {
        b"host" => true,
        // `$http_host` does not count: with a URL in the request line, a client may send any `Host`.
        b"urlproxy_tool" => *mode != Mode::Domain,
        b"urlproxy_domain" => *mode == Mode::Domain,
        _ => false,
    })
}

/// The names of the variables in `text`.
fn variable_names(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'$').skip(1).map(|rest| {
        let rest = rest.strip_prefix(b"{").unwrap_or(rest);
        let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_key_separates_tenants_by_host_or_tool() {
        for (key, in_path_mode, in_domain_mode) in [
            ("", false, false),
            ("$scheme$proxy_host$request_uri", false, false),
            ("$hostname$request_uri", false, false),
            ("$urlproxy_scheme$request_uri", false, false),
            ("$scheme$host$request_uri", true, true),
            ("${host}x", true, true),
            ("$http_host$uri", false, false),
            ("$urlproxy_domain$request_uri", false, true),
            ("$urlproxy_tool$uri", true, false),
        ] {
            let apart = |mode| separates_tenants(key.as_bytes(), &mode);
            assert_eq!((apart(Mode::Path), apart(Mode::Domain)), (in_path_mode, in_domain_mode), "{key}");
        }
    }
}
