//! Origins: who registered a route, for operators and the audit.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cluster::CLUSTER;
use crate::route::{Backend, ToolName};

/// proxylistener's name in origins.
pub const GRID: &str = "proxylistener";

/// The value of one field of `origin:<tool>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The program that wrote the route.
    pub source: String,
    /// The user, or Service, that registered it.
    pub owner: String,
    /// The machine that it was registered from: an address, or the host name of kube2proxy.
    pub host: String,
    /// Unix seconds of the registration.
    pub since: u64,
    /// The backend's URL, if it is on another host than `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

impl Origin {
    /// Whether the origin still fits the route. Old writers, which do not write origins, may have overwritten the URL.
    fn is_of(&self, backend: &Backend) -> bool {
        match &self.destination {
            Some(destination) => *destination == backend.to_string(),
            None => {
                let host = self.host.parse().ok().map(|host: IpAddr| host.to_canonical());
                host.is_some() && host == backend.socket_addr().map(|address| address.ip().to_canonical())
            }
        }
    }
}

/// A route in Redis that a grid job registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridRoute {
    /// The tool.
    pub tool: ToolName,
    /// The field of both hashes.
    pub pattern: String,
    /// The value in `prefix:<tool>`.
    pub url: String,
    /// The parsed URL.
    pub backend: Backend,
    /// The value in `origin:<tool>`; empty without one.
    pub origin: String,
    /// The registrant, if [`GRID`] wrote the route; `None` if an old writer did.
    pub registrant: Option<Registrant>,
}

/// The client that registered a route, from an origin that fits the route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// The client's user.
    pub owner: String,
    /// Unix seconds of the registration.
    pub since: u64,
}

/// A tool's routes that grid jobs registered, from `prefix:<tool>` and `origin:<tool>`: those with an origin of [`GRID`], and
/// those without a fitting origin that `is_clusters` does not know. Skips invalid URLs, invalid origins, and those of other
/// programs.
pub fn grid_routes(
    tool: &ToolName,
    routes: HashMap<Vec<u8>, Vec<u8>>,
    origins: &HashMap<Vec<u8>, Vec<u8>>,
    is_clusters: impl Fn(&str) -> bool,
) -> Vec<GridRoute> {
    let route = |(pattern, url): (Vec<u8>, Vec<u8>)| {
        let (origin, entry) = match origins.get(&pattern) {
            Some(text) => {
                let entry: Origin = serde_json::from_slice(text).ok()?;
                (String::from_utf8(text.clone()).ok()?, Some(entry))
            }
            None => (String::new(), None),
        };
        let (pattern, url) = (String::from_utf8(pattern).ok()?, String::from_utf8(url).ok()?);
        let backend: Backend = url.parse().ok()?;
        let registrant = match entry {
            Some(entry) if entry.is_of(&backend) => {
                let Origin { source, owner, since, .. } = entry;
                (source == GRID).then_some(Some(Registrant { owner, since }))?
            }
            Some(entry) if entry.source != GRID && entry.source != CLUSTER => return None,
            Some(_) | None if is_clusters(&pattern) => return None,
            Some(_) | None => None,
        };
        Some(GridRoute { tool: tool.clone(), pattern, url, backend, origin, registrant })
    };
    routes.into_iter().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_routes_have_its_origin_or_none() {
        let hash = |fields: &[(&str, &str)]| -> HashMap<Vec<u8>, Vec<u8>> {
            fields.iter().map(|(field, value)| (field.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let origin = |source| format!(r#"{{"source":"{source}","owner":"o","host":"10.0.0.1","since":7}}"#);
        let elsewhere = |source| {
            let url = "http://10.0.0.2:80";
            format!(r#"{{"source":"{source}","owner":"o","host":"10.0.0.1","since":7,"destination":"{url}"}}"#)
        };
        let (grid, cluster, other) = (origin(GRID), origin(CLUSTER), origin("urlproxyctl"));
        let (grid_elsewhere, cluster_elsewhere) = (elsewhere(GRID), elsewhere(CLUSTER));
        let other_elsewhere = elsewhere("urlproxyctl");
        let grid_by_name = grid.replace("10.0.0.1", "exec-1");
        let url = "http://10.0.0.1:80";
        let tool = ToolName::try_new(b"hello").unwrap();
        let patterns = [
            "/grid",
            "/cluster",
            "/other",
            "/broken",
            "/none",
            "/k8s",
            "/over",
            "/over-cluster",
            "/over-k8s",
            "/over-other",
        ];
        let mut routes = hash(&patterns.map(|pattern| (pattern, url)));
        routes.extend(hash(&[
            ("/nonsense", "nonsense"),
            ("/there", "HTTP://10.0.0.2/"),
            ("/name", "http://exec-1:80"),
            ("/over-name", "http://exec-1:80"),
        ]));
        let origins = hash(&[
            ("/grid", &grid),
            ("/cluster", &cluster),
            ("/other", &other),
            ("/broken", "{"),
            ("/nonsense", &grid),
            ("/there", &grid_elsewhere),
            ("/over", &grid_elsewhere),
            ("/over-cluster", &cluster_elsewhere),
            ("/over-k8s", &cluster_elsewhere),
            ("/over-other", &other_elsewhere),
            ("/over-name", &grid_by_name),
            ("/gone", &grid),
        ]);
        let mut found = grid_routes(&tool, routes, &origins, |pattern| pattern.contains("k8s"));
        found.sort_by(|one, other| one.pattern.cmp(&other.pattern));
        let found: Vec<_> =
            found.iter().map(|r| (&*r.pattern, r.registrant.as_ref().map(|s| s.since), &*r.origin)).collect();
        let want = [
            ("/grid", Some(7), &*grid),
            ("/name", None, ""),
            ("/none", None, ""),
            ("/over", None, &grid_elsewhere),
            ("/over-cluster", None, &cluster_elsewhere),
            ("/over-name", None, &grid_by_name),
            ("/there", Some(7), &grid_elsewhere),
        ];
        assert_eq!(found, want);
    }
}
