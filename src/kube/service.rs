//! The route of one Service: its tool, pattern and backend, or the reason why it has none.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use kube::core::DynamicObject;

use crate::route::{Backend, Pattern, Scheme, ToolName};

/// The label that limits a Service's route to paths with this prefix.
const PATH_LABEL: &str = "toollabs-proxy-path";
/// Names of web ports, in order of preference.
const WEB_PORTS: [&str; 2] = ["http", "web"];
/// The placeholder of the tool in a namespace template.
const TOOL: &str = "{tool}";

/// The namespaces that belong to a tool: a name with `{tool}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceTemplate(String);

impl NamespaceTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// `{tool}` is missing or repeated, or another character is not allowed in a namespace.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.replacen(TOOL, "", 1);
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.contains(TOOL) && rest.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("invalid namespace template {text:?}, expected a name with {TOOL:?} in it, e.g. \"tool-{TOOL}\""))
    }

    fn tool_of<'a>(&self, namespace: &'a str) -> Option<&'a str> {
        let (before, after) = self.0.split_once(TOOL)?;
        namespace.strip_prefix(before)?.strip_suffix(after).filter(|tool| !tool.is_empty())
    }

    /// The length of the literal text, plus a constant.
    fn literal_len(&self) -> usize {
        self.0.len()
    }
}

/// The one tool that a namespace belongs to. Of several matching templates, the one with the most literal text decides: with
/// `{tool}` and `tool-{tool}`, the namespace `tool-x` belongs to the tool `x`, which must not own the tool `tool-x` as well.
fn owner_of<'a>(namespace: &'a str, templates: &[NamespaceTemplate]) -> Option<&'a str> {
    let fitting = templates.iter().filter_map(|template| Some((template.literal_len(), template.tool_of(namespace)?)));
    fitting.max_by_key(|(literal_len, _)| *literal_len).map(|(_, tool)| tool)
}

/// The route of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRoute {
    /// The name of the Service.
    pub tool: ToolName,
    /// `.*`, or `/p.*` for a Service with the label `toollabs-proxy-path: p`.
    pub pattern: Pattern,
    /// The cluster address and web port.
    pub backend: Backend,
}

/// Why a Service has no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceRejection {
    /// A tenant can name a Service after any tool.
    #[error("the namespace does not belong to the tool {0:?}")]
    NamespaceNotAllowed(String),
    /// `clusterIP: None`.
    #[error("the Service is headless: it has no cluster address to send requests to")]
    Headless,
    /// An alias of a DNS name, without an address.
    #[error("a Service of type ExternalName has no cluster address to send requests to")]
    ExternalName,
    /// The address is not assigned yet, or invalid.
    #[error("the Service has no valid cluster address: {0:?}")]
    NoAddress(String),
    /// No port, or UDP and SCTP ports only.
    #[error("the Service has no TCP port")]
    NoPort,
    /// The path label makes no valid pattern.
    #[error("invalid label {PATH_LABEL}: {0}")]
    Path(String),
    /// An older Service of the tool, in this namespace, has the same pattern.
    #[error("an older Service in the namespace {0:?} has this path")]
    AlreadyClaimed(String),
    /// A newer Service of another tool, `namespace/name`, has the same address.
    #[error("the newer Service {0:?} has the same address")]
    AddressTaken(String),
    /// The object is not a Service of the `v1` schema.
    #[error("the Service cannot be read: {0}")]
    Malformed(String),
}

impl ServiceRejection {
    /// All values of [`Self::reason`].
    pub const REASONS: [&str; 9] = [
        "NamespaceNotAllowed",
        "Headless",
        "ExternalName",
        "NoAddress",
        "NoPort",
        "InvalidPath",
        "AlreadyClaimed",
        "AddressTaken",
        "Malformed",
    ];

    /// Whether the Service would have a route if another Service did not exist.
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::AlreadyClaimed(_) | Self::AddressTaken(_))
    }

    /// The Event's `reason` and the metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NamespaceNotAllowed(_) => "NamespaceNotAllowed",
            Self::Headless => "Headless",
            Self::ExternalName => "ExternalName",
            Self::NoAddress(_) => "NoAddress",
            Self::NoPort => "NoPort",
            Self::Path(_) => "InvalidPath",
            Self::AlreadyClaimed(_) => "AlreadyClaimed",
            Self::AddressTaken(_) => "AddressTaken",
            Self::Malformed(_) => "Malformed",
        }
    }
}

/// Reads the route of a Service.
pub fn route_of(service: &DynamicObject, templates: &[NamespaceTemplate]) -> Result<ServiceRoute, ServiceRejection> {
    let malformed = |what: &str| ServiceRejection::Malformed(what.to_owned());
    let name = service.metadata.name.as_deref().ok_or_else(|| malformed("no name"))?;
    let namespace = service.metadata.namespace.as_deref().ok_or_else(|| malformed("no namespace"))?;
    let tool = ToolName::try_new(name.as_bytes()).map_err(|error| malformed(&error.to_string()))?;
    if owner_of(namespace, templates) != Some(name) {
        return Err(ServiceRejection::NamespaceNotAllowed(name.to_owned()));
    }
    let spec = service.data.get("spec").cloned().ok_or_else(|| malformed("no spec"))?;
    let spec: ServiceSpec = serde_json::from_value(spec).map_err(|error| malformed(&error.to_string()))?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(ServiceRejection::ExternalName);
    }
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    if address == "None" {
        return Err(ServiceRejection::Headless);
    }
    let ip: IpAddr = address.parse().map_err(|_| ServiceRejection::NoAddress(address.to_owned()))?;
    let port = web_port(spec.ports.as_deref().unwrap_or_default()).ok_or(ServiceRejection::NoPort)?;
    Ok(ServiceRoute {
        tool,
        pattern: pattern_of(service)?,
        backend: Backend { scheme: Scheme::Http, host: ip.into(), port },
    })
}

/// A port with a web name, else the last one, as the old kube2proxy did.
fn web_port(ports: &[ServicePort]) -> Option<u16> {
    let is_tcp = |port: &&ServicePort| matches!(port.protocol.as_deref(), None | Some("TCP"));
    let named = |name: &&str| ports.iter().filter(is_tcp).find(|port| port.name.as_deref() == Some(*name));
    let port = WEB_PORTS.iter().find_map(named).or_else(|| ports.iter().rfind(is_tcp))?;
    u16::try_from(port.port).ok().filter(|&port| port > 0)
}

fn pattern_of(service: &DynamicObject) -> Result<Pattern, ServiceRejection> {
    let path =
        service.metadata.labels.as_ref().and_then(|labels| labels.get(PATH_LABEL)).filter(|path| !path.is_empty());
    match path {
        None => Ok(Pattern::any()),
        Some(path) => {
            let pattern = Pattern::try_new(&format!("/{path}.*"));
            pattern.map_err(|error| ServiceRejection::Path(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn templates() -> Vec<NamespaceTemplate> {
        [TOOL, "tool-{tool}"].map(|text| NamespaceTemplate::parse(text).unwrap()).into()
    }

    fn service(namespace: &str, spec: Value, labels: Value) -> DynamicObject {
        let metadata = json!({"name": "hello", "namespace": namespace, "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn read(spec: Value) -> Result<String, ServiceRejection> {
        route_of(&service("tool-hello", spec, json!({})), &templates()).map(|route| route.backend.to_string())
    }

    #[test]
    fn web_port_is_named_or_last() {
        let port = |name: &str, port: u16| json!({"name": name, "port": port});
        for (ports, want) in [
            (json!([port("a", 1), port("http", 2), port("web", 3), port("z", 4)]), 2),
            (json!([port("a", 1), port("web", 3), port("z", 4)]), 3),
            (json!([port("a", 1), port("z", 4)]), 4),
            (json!([{"port": 8000}]), 8000),
            (json!([{"port": 8000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]), 8000),
            (json!([{"port": 1, "name": "http", "protocol": "UDP"}, {"port": 2}]), 2),
        ] {
            let url = read(json!({"clusterIP": "10.0.0.1", "ports": ports})).unwrap();
            assert_eq!(url, format!("http://10.0.0.1:{want}"));
        }
        let url = read(json!({"clusterIP": "fd00::1", "ports": [{"port": 80}]})).unwrap();
        assert_eq!(url, "http://[fd00::1]:80");
    }

    #[test]
    fn each_rejection_has_its_reason() {
        let ports = json!([{"port": 80}]);
        for (spec, reason) in [
            (json!({"clusterIP": "None", "ports": ports}), "Headless"),
            (json!({"type": "ExternalName", "externalName": "example.org"}), "ExternalName"),
            (json!({"ports": ports}), "NoAddress"),
            (json!({"clusterIP": "", "ports": ports}), "NoAddress"),
            (json!({"clusterIP": "10.0.0.1:80", "ports": ports}), "NoAddress"),
            (json!({"clusterIP": "example.org", "ports": ports}), "NoAddress"),
            (json!({"clusterIP": "10.0.0.1"}), "NoPort"),
            (json!({"clusterIP": "10.0.0.1", "ports": []}), "NoPort"),
            (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 53, "protocol": "UDP"}]}), "NoPort"),
            (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 0}]}), "NoPort"),
            (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 65536}]}), "NoPort"),
            (json!({"clusterIP": "10.0.0.1", "ports": "80"}), "Malformed"),
            (json!({"clusterIP": 10, "ports": ports}), "Malformed"),
            (json!(null), "Malformed"),
        ] {
            assert_eq!(read(spec.clone()).unwrap_err().reason(), reason, "{spec}");
        }
    }

    #[test]
    fn tools_own_only_their_namespaces() {
        let spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
        let allowed = |namespace, templates: &[NamespaceTemplate]| {
            route_of(&service(namespace, spec.clone(), json!({})), templates).is_ok()
        };
        for (namespace, want) in [
            ("hello", true),
            ("tool-hello", true),
            ("tool-", false),
            ("tool-hello2", false),
            ("other", false),
            ("", false),
        ] {
            assert_eq!(allowed(namespace, &templates()), want, "{namespace}");
        }
        let tools = |namespace| owner_of(namespace, &templates());
        assert_eq!((tools("hello"), tools("tool-x"), tools("tool-tool-x")), (Some("hello"), Some("x"), Some("tool-x")));
        let others = [NamespaceTemplate::parse("t-{tool}-prod").unwrap()];
        assert!(allowed("t-hello-prod", &others) && !allowed("tool-hello", &others) && !allowed("t-hello", &others));
        for text in ["", "tools", "tool-{tool", "{tool}{tool}", "Tool-{tool}", "tool/{tool}"] {
            assert!(NamespaceTemplate::parse(text).unwrap_err().contains("expected a name with"), "{text}");
        }
    }

    #[test]
    fn label_limits_the_paths() {
        let spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
        let pattern = |labels| route_of(&service("hello", spec.clone(), labels), &templates()).unwrap().pattern;
        assert_eq!(pattern(json!({})).as_str(), ".*");
        assert_eq!(pattern(json!({PATH_LABEL: ""})).as_str(), ".*");
        assert_eq!(pattern(json!({PATH_LABEL: "v1.0_x-y"})).as_str(), "/v1.0_x-y.*");
        let strange = service("hello", spec.clone(), json!({PATH_LABEL: "("}));
        assert_eq!(route_of(&strange, &templates()).unwrap_err().reason(), "InvalidPath");
    }
}
