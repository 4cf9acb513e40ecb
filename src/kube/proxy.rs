//! Whether the API server is asked through a proxy, as kubectl decides it: a kubeconfig's `proxy-url`, else `HTTPS_PROXY` or
//! `HTTP_PROXY` unless `NO_PROXY` names the API server.
//!
//! The rules are those of Go's `httpproxy` package. (The kube crate's own compare `NO_PROXY` with the proxy's address.)

use std::net::IpAddr;

use hyper::Uri;
use ipnet::IpNet;

/// Schemes of proxies.
const SCHEMES: [&str; 3] = ["http", "https", "socks5"];

/// What a proxy's URL must be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {source_name}, expected e.g. http://proxy.example.org:3128")]
pub struct ProxyError {
    /// Where the URL stands. The URL itself may hold a password.
    source_name: &'static str,
}

/// The variables that say which proxy to take.
#[derive(Clone, Debug, Default)]
pub struct ProxyVariables {
    /// For API servers with TLS.
    pub https_proxy: Option<String>,
    /// For those without.
    pub http_proxy: Option<String>,
    /// For whom there is none.
    pub no_proxy: Option<String>,
}

impl ProxyVariables {
    /// As the environment has them, in upper or lower case.
    pub fn from_environment() -> Self {
        let one_of = |names: [&str; 2]| {
            names.into_iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        Self {
            https_proxy: one_of(["HTTPS_PROXY", "https_proxy"]),
            http_proxy: one_of(["HTTP_PROXY", "http_proxy"]),
            no_proxy: one_of(["NO_PROXY", "no_proxy"]),
        }
    }

    /// The proxy for this API server; `None` for none. What a kubeconfig says counts whatever the variables say.
    ///
    /// # Errors
    /// What should be a proxy's URL is none.
    pub fn proxy_for(&self, server: &Uri, in_kubeconfig: Option<&str>) -> Result<Option<Uri>, ProxyError> {
        if let Some(url) = in_kubeconfig.filter(|url| !url.is_empty()) {
            return parse(url).map(Some).ok_or(ProxyError { source_name: "proxy-url in the kubeconfig" });
        }
        let is_tls = server.scheme_str() != Some("http");
        let (url, source_name) =
            if is_tls { (&self.https_proxy, "HTTPS_PROXY") } else { (&self.http_proxy, "HTTP_PROXY") };
        let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_lowercase();
        let port = server.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let Some(url) = url.as_deref().filter(|_| self.is_proxied(&host, port)) else { return Ok(None) };
        // A bare host and port is a proxy without TLS.
        let parsed = if url.contains("://") { parse(url) } else { parse(&format!("http://{url}")) };
        parsed.map(Some).ok_or(ProxyError { source_name })
    }

    fn is_proxied(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        let entries = self.no_proxy.as_deref().unwrap_or_default().split(',').map(|entry| entry.trim().to_lowercase());
        !entries.into_iter().any(|entry| is_named(&entry, host, address, port))
    }
}

/// Whether an entry of `NO_PROXY` names this host and port: `*`, `10.0.0.0/8`, `10.0.0.1`, `example.org` with everything below it,
/// `.example.org` or `*.example.org` for what is below it alone; each but the first two perhaps with `:port`.
fn is_named(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return address.is_some_and(|address| network.contains(&address));
    }
    let bare = |name: &str| name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    // An IPv6 address without brackets has no port.
    let (name, only_port) = match entry.rsplit_once(':') {
        Some((name, digits)) if bare(entry).is_none() => match digits.parse::<u16>() {
            Ok(only) => (name, Some(only)),
            Err(_) => return false,
        },
        _ => (entry, None),
    };
    if name.is_empty() || only_port.is_some_and(|only| only != port) {
        return false;
    }
    if let Some(named) = bare(name) {
        return address == Some(named);
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    match name.strip_prefix('.') {
        Some(parent) => host.strip_suffix(parent).is_some_and(|below| below.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|below| below.ends_with('.')),
    }
}

fn parse(url: &str) -> Option<Uri> {
    let url: Uri = url.parse().ok()?;
    let is_known = url.scheme_str().is_some_and(|scheme| SCHEMES.contains(&scheme)) && url.host().is_some();
    is_known.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(no_proxy: &str) -> ProxyVariables {
        let proxy = |name: &str| Some(format!("http://{name}:3128"));
        ProxyVariables { https_proxy: proxy("tls"), http_proxy: proxy("plain"), no_proxy: Some(no_proxy.into()) }
    }

    fn proxy(variables: &ProxyVariables, server: &str, in_kubeconfig: Option<&str>) -> Result<String, ProxyError> {
        let proxy = variables.proxy_for(&server.parse().unwrap(), in_kubeconfig)?;
        Ok(proxy.map_or_else(String::new, |proxy| proxy.host().unwrap_or_default().to_owned()))
    }

    #[test]
    fn the_scheme_of_the_server_says_which_proxy() {
        let variables = variables("");
        assert_eq!(proxy(&variables, "https://api.example.org", None).unwrap(), "tls");
        assert_eq!(proxy(&variables, "http://api.example.org", None).unwrap(), "plain");
        assert_eq!(proxy(&ProxyVariables::default(), "https://api.example.org", None).unwrap(), "");
        for local in ["https://localhost:6443", "https://127.0.0.1:6443", "https://[::1]:6443"] {
            assert_eq!(proxy(&variables, local, None).unwrap(), "", "{local}");
            assert_eq!(proxy(&variables, local, Some("socks5://own:1080")).unwrap(), "own", "{local}");
        }
        assert_eq!(proxy(&self::variables("*"), "https://a", Some("https://own:1")).unwrap(), "own");
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        let named = [
            ("*", "https://a.example.org"),
            ("other, *", "https://a.example.org"),
            ("a.example.org", "https://A.example.org"),
            ("example.org", "https://a.example.org:6443"),
            (".example.org", "https://a.example.org"),
            ("*.example.org", "https://a.example.org"),
            ("x,,a.example.org:6443,", "https://a.example.org:6443"),
            ("example.org:443", "https://a.example.org"),
            ("10.0.0.0/8", "https://10.1.2.3:6443"),
            ("10.1.2.3", "https://10.1.2.3:6443"),
            ("10.1.2.3:6443", "https://10.1.2.3:6443"),
            ("fd00::/8", "https://[fd00::1]:6443"),
            ("fd00::1", "https://[fd00::1]:6443"),
            ("[fd00::1]:6443", "https://[fd00::1]:6443"),
        ];
        for (no_proxy, server) in named {
            assert_eq!(proxy(&variables(no_proxy), server, None).unwrap(), "", "{no_proxy} {server}");
        }
        let not_named = [
            ("", "https://a.example.org"),
            (".a.example.org", "https://a.example.org"),
            ("*.a.example.org", "https://a.example.org"),
            ("xample.org", "https://a.example.org"),
            ("a.example.org:443", "https://a.example.org:6443"),
            ("example.org:x", "https://a.example.org"),
            ("a b", "https://a"),
            (":443", "https://a"),
            ("10.0.0.0/16", "https://10.1.2.3"),
            ("10.1.2.3:443", "https://10.1.2.3:6443"),
            ("fd00::2", "https://[fd00::1]"),
            ("10.0.0.0/8", "https://a.example.org"),
        ];
        for (no_proxy, server) in not_named {
            assert_eq!(proxy(&variables(no_proxy), server, None).unwrap(), "tls", "{no_proxy} {server}");
        }
    }

    #[test]
    fn a_proxys_url_is_checked_and_not_shown() {
        let with = |url: &str| ProxyVariables { https_proxy: Some(url.into()), ..ProxyVariables::default() };
        assert_eq!(proxy(&with("proxy:3128"), "https://a", None).unwrap(), "proxy");
        assert_eq!(proxy(&with("user:pass@proxy:3128"), "https://a", None).unwrap(), "proxy");
        for url in ["ftp://user:secret@proxy", "http://", "a b"] {
            let error = proxy(&with(url), "https://a", None).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("secret"), "{error}");
            let error = proxy(&with(""), "https://a", Some(url)).unwrap_err().to_string();
            assert!(error.contains("proxy-url") && !error.contains("secret"), "{error}");
        }
    }
}
