//! Credentials for Kubernetes, of a tool and of kube2proxy: any text gives a server and a token for it, or an error without the token.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use urlproxy::kube::ConfigFile;
use urlproxy::kube_client::{ProxyVariables, check_token};
use urlproxy::webservice::kubernetes::resolve_kubeconfig;

const SECRET: &str = "Sesam0effneDich";

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.contains(SECRET) {
        return;
    }
    check_kubeconfig(text);
    check_kubeconfig(&format!("{text}\nusers: [{{name: u, user: {{token: {SECRET}}}}}]\n"));
    if let Err(error) = ConfigFile::parse(&format!("{text}\nkubernetes: {{token: {SECRET}}}\n")) {
        assert!(!error.contains(SECRET), "{error}");
    }
    check_proxies(text);
}

fn check_kubeconfig(text: &str) {
    let path = Path::new("/data/project/hello/.kube/config");
    let read = |file: &Path| Ok(if file == path { text.into() } else { format!("{SECRET}\n").into() });
    let proxies = ProxyVariables::default();
    let resolved =
        pin!(resolve_kubeconfig(path.to_owned(), &proxies, &read)).poll(&mut Context::from_waker(Waker::noop()));
    match resolved {
        Poll::Ready(Ok(config)) => {
            assert!(matches!(config.cluster_url.scheme_str(), Some("http" | "https")), "{}", config.cluster_url);
            assert!(config.cluster_url.host().is_some() && !config.default_retry);
            let user = &config.auth_info;
            assert!(user.exec.is_none() && user.auth_provider.is_none() && user.token_file.is_none());
            let _ = check_token(user);
        }
        Poll::Ready(Err(error)) => {
            let error = error.to_string();
            assert!(!error.contains(SECRET) && !error.contains('\n'), "{error}");
        }
        Poll::Pending => unreachable!("memory never waits"),
    }
}

/// Lines: the API server, the kubeconfig's proxy, that of the environment, and the exceptions.
fn check_proxies(text: &str) {
    let mut lines = text.lines();
    let Some(Ok(server)) = lines.next().map(str::parse) else { return };
    let [in_kubeconfig, proxy, no_proxy] = std::array::from_fn(|_| lines.next().map(str::to_owned));
    let with_password = |url: &String| url.replacen("://", &format!("://u:{SECRET}@"), 1);
    let (in_kubeconfig, proxy) = (in_kubeconfig.as_ref().map(with_password), proxy.as_ref().map(with_password));
    let variables = ProxyVariables { https_proxy: proxy.clone(), http_proxy: proxy, no_proxy };
    for in_kubeconfig in [in_kubeconfig.as_deref(), None] {
        match variables.proxy_for(&server, in_kubeconfig) {
            Ok(Some(proxy)) => assert!(proxy.host().is_some() && proxy.scheme().is_some()),
            Ok(None) => {}
            Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
        }
    }
}
