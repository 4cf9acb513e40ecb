//! Chooses the proxy for the API server, as kubectl does: the kubeconfig's `proxy-url`, else `HTTPS_PROXY` or `HTTP_PROXY`
//! unless `NO_PROXY` names the API server.
//!
//! The rules are those of Go's `httpproxy` package. (The kube crate compares `NO_PROXY` with the proxy's address.)

use std::net::IpAddr;

use hyper::Uri;
use ipnet::IpNet;
use kube::config::Kubeconfig;

/// Supported proxy schemes.
const SCHEMES: [&str; 3] = ["http", "https", "socks5"];

/// An invalid proxy URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {source_name}, expected e.g. http://proxy.example.org:3128")]
pub struct ProxyError {
    /// The source of the URL. The URL itself may contain a password, so it is not shown.
    source_name: &'static str,
}

/// The proxy variables of the environment.
#[derive(Clone, Debug, Default)]
pub struct ProxyVariables {
    /// For an API server with TLS.
    pub https_proxy: Option<String>,
    /// For an API server without TLS.
    pub http_proxy: Option<String>,
    /// Hosts that are reached without a proxy.
    pub no_proxy: Option<String>,
}

impl ProxyVariables {
    /// Reads the environment, upper case first, then lower case.
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

    /// The proxy for this API server; `None` without one. The kubeconfig's proxy overrides the variables.
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
        // A bare host and port mean a proxy without TLS.
        let parsed = if url.contains("://") { parse(url) } else { parse(&format!("http://{url}")) };
        parsed.map(Some).ok_or(ProxyError { source_name })
    }

    fn is_proxied(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        let entries = self.no_proxy.as_deref().unwrap_or_default().split(',').map(|entry| entry.trim().to_lowercase());
        !entries.into_iter().any(|entry| matches_entry(&entry, host, address, port))
    }
}

/// Whether an entry of `NO_PROXY` matches this host and port: `*`, `10.0.0.0/8`, `10.0.0.1`, `example.org` with its subdomains,
/// `.example.org` or `*.example.org` for subdomains only; all but the first two may have `:port`.
fn matches_entry(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
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

/// The `proxy-url` of the cluster in the kubeconfig's current context.
pub fn proxy_in(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_deref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == current)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?;
    cluster.cluster.as_ref()?.proxy_url.clone()
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
    fn server_scheme_selects_the_proxy() {
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
    fn no_proxy_follows_the_rules_of_go() {
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
    fn invalid_proxy_urls_are_refused_and_not_shown() {
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
