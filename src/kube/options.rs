//! kube2proxy's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::desired::MAX_SELECTORS;
use super::service::NamespaceTemplate;
use crate::daemon::{CommonOptions, RedisOptions, parse_duration, parse_guard};
use crate::withdrawal_guard::GuardOption;

/// As it is called, and its file to accept withdrawals with.
pub(super) const PROGRAM: &str = "kube2proxy";

const HELP: &str = "\
Services with the label are tools: a Service called hello, in a namespace that --namespace-template gives to hello, has
requests for /hello/ sent to its cluster address, at its port called http or web, else at its last one. The label
toollabs-proxy-path=p narrows that to /hello/p... Why a Service is no route is told by an Event beside it.

While the API server does not answer, or answers wrong, all routes stay. Of --config, --kubeconfig and neither, the first
that is given says where it is; neither is for a pod of the cluster. --config is a YAML file:

    redis: 127.0.0.1:6379
    kubernetes:
      master: https://10.0.0.1:6443
      token: TOKEN                              or token_file: /path, read again and again
      certificate_authority: /etc/kubernetes/ca.crt

Of several on one Redis one writes, the others take over when it is gone. The API server is asked through the proxy that
HTTPS_PROXY, HTTP_PROXY and NO_PROXY or a kubeconfig's proxy-url say.

Exit status: 0 after SIGTERM or SIGINT; 64 for a wrong command line; 1 when it cannot start.

    kube2proxy --config /etc/urlproxy/kube2proxy.yaml
    kube2proxy --redis redis://redis.example.org/0 --metrics-listen 0.0.0.0:9283";

/// Labels of Services that are tools: the old one, and those that webservice gives.
const SELECTORS: [&str; 2] =
    ["tools.wmflabs.org/webservice=true", "app.kubernetes.io/component=web,app.kubernetes.io/managed-by=webservice"];

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about = "Has the proxy route to the web services in a Kubernetes cluster",
    after_help = HELP,
    mut_arg("redis", |redis| {
        let default = format!("the one in --config, else {}", RedisOptions::DEFAULT);
        redis.help(RedisOptions::help("Where routes are kept", &default))
    })
)]
pub struct Options {
    /// YAML file of the old kube2proxy, see below
    #[arg(long, value_name = "FILE", conflicts_with = "kubeconfig")]
    pub(super) config: Option<PathBuf>,
    /// How to reach the API server, as for kubectl
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Certificate authority of the API server, a PEM file, instead of what the configuration says
    #[arg(long, value_name = "FILE")]
    pub(super) certificate_authority: Option<PathBuf>,
    /// Take any certificate for the API server's: whoever is in between can then route every tool
    #[arg(long)]
    pub(super) insecure_skip_tls_verify: bool,
    /// Which Services are tools; may be given several times: those that any of them selects
    #[arg(long, value_name = "SELECTOR", default_values = SELECTORS)]
    pub(super) label_selector: Vec<String>,
    /// Which namespaces belong to a tool; may be given several times
    #[arg(long, value_name = "TEMPLATE", default_values = ["{tool}", "tool-{tool}"], value_parser = NamespaceTemplate::parse)]
    pub(super) namespace_template: Vec<NamespaceTemplate>,
    /// Does nothing: a lock in Redis has taken the Lease's place
    #[arg(long, value_name = "NAMESPACE/NAME", hide = true)]
    pub(super) lease: Option<String>,
    /// What a complete list may lack at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=120s", value_parser = |text: &str| parse_guard(text, PROGRAM))]
    pub(super) withdrawal_guard: GuardOption,
    /// How often everything is compared with Redis, whatever was heard
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) resync_interval: Duration,
    /// How long one watch lasts; a connection that is silent for 5 s longer is given up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) watch_timeout: Duration,
    #[command(flatten)]
    pub(super) common: CommonOptions,
}

impl Options {
    /// The selectors, each once.
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
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_file_is_asked_for_a_redis_before_there_is_a_default() {
        let command = Options::command();
        let redis = command.get_arguments().find(|argument| argument.get_id() == "redis").unwrap();
        assert!(redis.get_default_values().is_empty());
        assert!(redis.get_help().unwrap().to_string().contains(&format!("--config, else {}", RedisOptions::DEFAULT)));
    }

    #[test]
    fn what_is_not_said_has_a_sane_value() {
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
