//! Warnings about locations that would mix up what tenants get, as nginx reads its configuration.

use std::ffi::CStr;

use nginx_sys::{NGX_LOG_WARN, ngx_conf_t, ngx_http_conf_ctx_t};
use ngx::http::{HttpModuleLocationConf, HttpModuleServerConf, NgxHttpCoreModule};

use super::location_conf::{LocationConf, Mode};
use super::log;
use super::module::MainConf;
use super::pool;
use super::proxy_conf::{ProxyConf, ProxyModule, other_upstreams};

/// Warns of what is wrong with a location.
///
/// # Safety
/// `cf` is nginx's parser while it merges the levels of this location, and the proxy module's are merged.
pub(super) unsafe fn warn(cf: *mut ngx_conf_t, main: &MainConf, conf: &LocationConf) {
    // SAFETY: the caller's promise.
    let parser = unsafe { &*cf };
    let Some(location) = NgxHttpCoreModule::location_conf(parser) else { return };
    let mode = conf.table().map(|_| conf.mode());
    // SAFETY: as above.
    let mut texts = if mode.is_none() { unsafe { without_route(cf, main) } } else { Vec::new() };
    // SAFETY: as above.
    if let Some(proxy) = main.proxy.get_or_init(|| unsafe { ProxyModule::find(cf) }) {
        // SAFETY: the parser's context is of the http block.
        let ctx = unsafe { &*parser.ctx.cast::<ngx_http_conf_ctx_t>() };
        // SAFETY: the context is that of the location.
        let proxy = unsafe { proxy.conf_of(ctx, location) };
        texts.extend(proxy.iter().flat_map(|proxy| faults(main, mode, proxy)));
    }
    if texts.is_empty() {
        return;
    }
    // SAFETY: the configuration's own string.
    let name = String::from_utf8_lossy(unsafe { pool::bytes(location.name) });
    let place = NgxHttpCoreModule::server_conf(parser).filter(|server| !server.file_name.is_null()).map(|server| {
        // SAFETY: nginx keeps the file's name as a C string.
        let file = unsafe { CStr::from_ptr(server.file_name.cast()) };
        format!(" of the server in {}:{}", file.to_string_lossy(), server.line)
    });
    let place = place.unwrap_or_default();
    for text in texts {
        // SAFETY: the parser's log.
        unsafe { log::write(parser.log, NGX_LOG_WARN, &format!("{text}, in location \"{name}\"{place}")) };
    }
}

/// What leads to peers by other directives than `proxy_pass`, though the location has no `urlproxy`.
///
/// # Safety
/// As for [`warn`].
unsafe fn without_route(cf: *mut ngx_conf_t, main: &MainConf) -> Vec<String> {
    // SAFETY: the caller's promise.
    let upstreams = unsafe { other_upstreams(cf) };
    upstreams.iter().filter(|(_, upstream)| main.has_upstream(*upstream)).map(|(by, _)| no_route(by)).collect()
}

/// What is wrong with a location that has `proxy_pass`; `mode` is that of its `urlproxy`.
fn faults(main: &MainConf, mode: Option<&Mode>, proxy: &ProxyConf<'_>) -> Vec<String> {
    let passes_to_peers = main.has_upstream(proxy.upstream());
    let Some(mode) = mode else {
        return passes_to_peers.then(|| no_route("proxy_pass")).into_iter().collect();
    };
    // With variables it is one of ours, or the backend itself.
    if !passes_to_peers && (!proxy.upstream().is_null() || !main.has_upstreams()) {
        return Vec::new();
    }
    let is_default_host = proxy.header(b"host").is_none_or(|host| names(host).any(|name| name == b"proxy_host"));
    let mixes_pages = proxy.cache_key().is_some_and(|key| !tells_tenants_apart(key, mode));
    let host = is_default_host.then_some(DEFAULT_HOST);
    let key = mixes_pages.then_some(SHARED_PAGES);
    host.into_iter().chain(key).map(str::to_owned).collect()
}

fn no_route(directive: &str) -> String {
    format!(
        "\"{directive}\" leads to an upstream with \"urlproxy_peers\", but the location has no \"urlproxy\": \
         its requests will fail, expected e.g. \"urlproxy tools path;\""
    )
}

const DEFAULT_HOST: &str = "backends get the upstream's name as \"Host\", the same for all tenants, expected e.g. \
     \"proxy_set_header Host $host;\"";
const SHARED_PAGES: &str = "\"proxy_cache\" may send one tenant's pages to another's visitors, expected e.g. \
     \"proxy_cache_key $scheme$host$request_uri;\"";

/// Whether pages of different tenants have different keys.
fn tells_tenants_apart(key: &[u8], mode: &Mode) -> bool {
    names(key).any(|name| match name {
        b"host" => true,
        // Not `$http_host`: with a URL in the request line, a client may send any other there.
        b"urlproxy_tool" => *mode != Mode::Domain,
        b"urlproxy_domain" => *mode == Mode::Domain,
        _ => false,
    })
}

/// The names of the variables in a text.
fn names(text: &[u8]) -> impl Iterator<Item = &[u8]> {
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
    fn a_key_tells_tenants_apart_by_host_or_tool() {
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
            let apart = |mode| tells_tenants_apart(key.as_bytes(), &mode);
            assert_eq!((apart(Mode::Path), apart(Mode::Domain)), (in_path_mode, in_domain_mode), "{key}");
        }
    }
}
