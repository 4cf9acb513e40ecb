//! kube2proxy's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::desired::MAX_SELECTORS;
use super::service::NamespaceTemplate;
use crate::daemon::{CommonOptions, RedisOptions, parse_duration, parse_guard};
use crate::withdrawal_guard::GuardOption;

/// The name of the program and of its accept file.
pub(super) const PROGRAM: &str = "kube2proxy";

const HELP: &str = "\
Each selected Service named after a tool becomes a route: requests for /hello/ go to the cluster address of the Service
hello in a namespace that --namespace-template gives to hello, at the port named http, else web, else the last one. The
label toollabs-proxy-path=p limits the route to /hello/p... A rejected Service gets an Event with the reason.

While the API server is unreachable or returns errors, all routes stay. Its address is in --config or --kubeconfig;
without either, kube2proxy runs in a pod of the cluster. --config is a YAML file:

    redis: 127.0.0.1:6379
    kubernetes:
      master: https://10.0.0.1:6443
      token: TOKEN                              or token_file: /path, reread regularly
      certificate_authority: /etc/kubernetes/ca.crt

Of several replicas on one Redis one writes; another takes over when it ends. HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or a
kubeconfig's proxy-url, select a proxy for the API server.

Exit status: 0 after SIGTERM or SIGINT; 64 on usage errors; 1 if it cannot start.

    kube2proxy --config /etc/urlproxy/kube2proxy.yaml
    kube2proxy --redis redis://redis.example.org/0 --metrics-listen 0.0.0.0:9283";

/// Default selectors: the old label, and the labels that webservice sets.
const SELECTORS: [&str; 2] =
    ["tools.wmflabs.org/webservice=true", "app.kubernetes.io/component=web,app.kubernetes.io/managed-by=webservice"];

/// kube2proxy's options.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about = "Routes requests to the web services in a Kubernetes cluster",
    after_help = HELP,
    mut_arg("redis", |redis| {
        let default = format!("the one in --config, else {}", RedisOptions::DEFAULT);
        redis.help(RedisOptions::help("Redis that holds the routes", &default))
    })
)]
pub struct Options {
    /// YAML file of the old kube2proxy, see below
    #[arg(long, value_name = "FILE", conflicts_with = "kubeconfig")]
    pub(super) config: Option<PathBuf>,
    /// Kubeconfig with the API server and the credentials, as for kubectl
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// PEM file with the API server's certificate authority; overrides the configuration
    #[arg(long, value_name = "FILE")]
    pub(super) certificate_authority: Option<PathBuf>,
    /// Accept any certificate of the API server: a man in the middle can then route every tool
    #[arg(long)]
    pub(super) insecure_skip_tls_verify: bool,
    /// Label selector of the Services to route; repeatable, a Service needs to match one [default:
    /// tools.wmflabs.org/webservice=true,
    /// app.kubernetes.io/component=web,app.kubernetes.io/managed-by=webservice]
    #[arg(long, value_name = "SELECTOR", default_values = SELECTORS, hide_default_value = true)]
    pub(super) label_selector: Vec<String>,
    /// Namespaces that belong to a tool; repeatable [default: {tool}, tool-{tool}]
    #[arg(long, value_name = "TEMPLATE", default_values = ["{tool}", "tool-{tool}"], hide_default_value = true,
        value_parser = NamespaceTemplate::parse)]
    pub(super) namespace_template: Vec<NamespaceTemplate>,
    /// No effect: a lock in Redis replaced the Lease
    #[arg(long, value_name = "NAMESPACE/NAME", hide = true)]
    pub(super) lease: Option<String>,
    /// Largest loss of routes that is withdrawn at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=120s", value_parser = |text: &str| parse_guard(text, PROGRAM))]
    pub(super) withdrawal_guard: GuardOption,
    /// Time between full comparisons with Redis
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) resync_interval: Duration,
    /// Duration of one watch; a connection idle for 5 s longer is closed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) watch_timeout: Duration,
    #[command(flatten)]
    pub(super) common: CommonOptions,
}

impl Options {
    /// The distinct selectors; `None` if there are more than [`MAX_SELECTORS`].
    pub(super) fn selectors(&self) -> Option<Vec<String>> {
        let mut selectors = self.label_selector.clone();
        selectors.sort_unstable();
        selectors.dedup();
        (selectors.len() <= MAX_SELECTORS).then_some(selectors)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn help_lists_repeatable_defaults() {
        let command = Options::command();
        for name in ["label_selector", "namespace_template"] {
            let argument = command.get_arguments().find(|argument| argument.get_id() == name).unwrap();
            let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
            let shown = format!("[default: {}]", defaults.join(", "));
            assert!(argument.get_help().unwrap().to_string().ends_with(&shown), "{shown}");
        }
    }

    #[test]
    fn redis_of_the_file_precedes_the_default() {
        let command = Options::command();
        let redis = command.get_arguments().find(|argument| argument.get_id() == "redis").unwrap();
        assert!(redis.get_default_values().is_empty());
        assert!(redis.get_help().unwrap().to_string().contains(&format!("--config, else {}", RedisOptions::DEFAULT)));
    }

    #[test]
    fn missing_options_have_defaults() {
        let options = Options::try_parse_from(["kube2proxy"]).unwrap();
        let guard = options.withdrawal_guard.into_settings(PROGRAM).unwrap();
        assert_eq!((guard.percent, guard.floor, guard.hold), (50, 20, Duration::from_secs(120)));
        assert_eq!(guard.accept, PathBuf::from("/run/urlproxy/kube2proxy.accept"));
        assert_eq!(options.namespace_template.len(), 2);
        let args = ["kube2proxy", "--label-selector", "a", "--label-selector", "b=c", "--label-selector", "a"];
        assert_eq!(Options::try_parse_from(args).unwrap().selectors().unwrap(), ["a", "b=c"]);
        let many: Vec<String> = (0..=MAX_SELECTORS).map(|number| format!("--label-selector=l{number}")).collect();
        let many = Options::try_parse_from(std::iter::once("kube2proxy".into()).chain(many)).unwrap();
        assert_eq!(many.selectors(), None);
        let options = Options::try_parse_from(["kube2proxy", "--namespace-template", "t-{tool}"]).unwrap();
        assert_eq!(
            options.selectors().unwrap(),
            [
                "app.kubernetes.io/component=web,app.kubernetes.io/managed-by=webservice",
                "tools.wmflabs.org/webservice=true"
            ]
        );
        assert_eq!(options.namespace_template, [NamespaceTemplate::parse("t-{tool}").unwrap()]);
    }
}
