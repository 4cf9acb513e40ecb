//! kube2proxy's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::lease::LeaseName;
use super::service::NamespaceTemplate;
use crate::daemon::{LogOptions, parse_duration};
use crate::registry::GuardSettings;

/// Where the operator lets a held withdrawal through.
const ACCEPT: &str = "/run/urlproxy/kube2proxy.accept";

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

Several replicas need a --lease: one of them leads and writes, the others take over when it is gone.

Exit status: 0 after SIGTERM or SIGINT; 64 for a wrong command line; 1 when it cannot start.

    kube2proxy --config /etc/urlproxy/kube2proxy.yaml
    kube2proxy --redis redis://redis.example.org/0 --lease urlproxy/kube2proxy --metrics-listen 0.0.0.0:9283";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "kube2proxy",
    version,
    about = "Has the proxy route to the web services in a Kubernetes cluster",
    after_help = HELP
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
    /// Which Services are tools
    #[arg(long, value_name = "SELECTOR", default_value = "tools.wmflabs.org/webservice=true")]
    pub(super) label_selector: String,
    /// Which namespaces belong to a tool; may be given several times
    #[arg(long, value_name = "TEMPLATE", default_values = ["{tool}", "tool-{tool}"], value_parser = NamespaceTemplate::parse)]
    pub(super) namespace_template: Vec<NamespaceTemplate>,
    /// Lease by which one of several replicas leads
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) lease: Option<LeaseName>,
    /// What a complete list may lack at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=120s", value_parser = parse_guard)]
    pub(super) withdrawal_guard: GuardOption,
    /// How often everything is compared with Redis, whatever was heard
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) resync_interval: Duration,
    /// How long one watch lasts; a connection that is silent for 5 s longer is given up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) watch_timeout: Duration,
    /// Where routes are kept: redis://[user:password@]host[:port][/db] or unix:///path
    /// [default: the one in --config, else redis://127.0.0.1:6379/0]
    #[arg(long, value_name = "URL", env = "URLPROXY_REDIS", hide_env_values = true)]
    pub(super) redis: Option<String>,
    /// Where to tell of itself over HTTP: /metrics, /live and /ready [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) metrics_listen: Option<std::net::SocketAddr>,
    #[command(flatten)]
    /// Its log.
    pub log: LogOptions,
}

/// `None` is no guard. A type of its own: clap would take an `Option` for an option left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuardOption(pub Option<GuardSettings>);

fn parse_guard(text: &str) -> Result<GuardOption, String> {
    let example = "expected e.g. \"50% floor=20 hold=120s accept=/run/urlproxy/kube2proxy.accept\", or \"off\"";
    let mut words = text.split_whitespace();
    let share = words.next().unwrap_or_default();
    if text == "off" {
        return Ok(GuardOption(None));
    }
    let percent =
        share.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|share| (1..=100).contains(share));
    let percent = percent.ok_or_else(|| format!("invalid share {share:?}, {example}"))?;
    let mut settings = GuardSettings { percent, floor: 20, hold: Duration::from_secs(120), accept: ACCEPT.into() };
    for word in words {
        let invalid = || format!("invalid parameter {word:?}, {example}");
        match word.split_once('=').ok_or_else(invalid)? {
            ("floor", value) => settings.floor = value.parse().map_err(|_| invalid())?,
            ("hold", value) => settings.hold = parse_duration(value).map_err(|_| invalid())?,
            ("accept", value) if value.starts_with('/') => settings.accept = value.into(),
            _ => return Err(invalid()),
        }
    }
    Ok(GuardOption(Some(settings)))
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
    fn guards_are_read() {
        let guard = |percent, floor, seconds, accept: &str| {
            GuardOption(Some(GuardSettings {
                percent,
                floor,
                hold: Duration::from_secs(seconds),
                accept: accept.into(),
            }))
        };
        assert_eq!(parse_guard("off"), Ok(GuardOption(None)));
        assert_eq!(parse_guard("7%"), Ok(guard(7, 20, 120, ACCEPT)));
        assert_eq!(parse_guard(" 50%  floor=0 hold=3s accept=/x "), Ok(guard(50, 0, 3, "/x")));
        for text in ["", "50", "0%", "101%", "50% floor=x", "50% hold=0s", "50% accept=x", "50% what", "off floor=1"] {
            assert!(parse_guard(text).unwrap_err().contains("expected e.g."), "{text}");
        }
    }

    #[test]
    fn what_is_not_said_has_a_sane_value() {
        let options = Options::try_parse_from(["kube2proxy"]).unwrap();
        assert_eq!(
            options.withdrawal_guard,
            GuardOption(Some(GuardSettings {
                percent: 50,
                floor: 20,
                hold: Duration::from_secs(120),
                accept: ACCEPT.into()
            }))
        );
        assert_eq!(options.namespace_template.len(), 2);
        let options = Options::try_parse_from(["kube2proxy", "--namespace-template", "t-{tool}"]).unwrap();
        assert_eq!(options.namespace_template, [NamespaceTemplate::parse("t-{tool}").unwrap()]);
    }
}
