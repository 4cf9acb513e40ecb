//! Who registered a route: kept beside it, for people and for the audit.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::route::{Backend, ToolName};

/// How proxylistener signs what it writes.
pub const GRID: &str = "proxylistener";

/// The value of one field of `origin:<tool>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which program wrote the route.
    pub source: String,
    /// On whose behalf.
    pub owner: String,
    /// From which machine.
    pub host: String,
    /// When, in Unix seconds.
    pub since: u64,
    /// The backend's URL, if it is on another machine than `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// A route that a job on the grid registered, as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridRoute {
    /// Whose.
    pub tool: ToolName,
    /// The field of both hashes.
    pub pattern: String,
    /// The value of the field in `prefix:<tool>`.
    pub url: String,
    /// The same, read.
    pub backend: Backend,
    /// The value of the field in `origin:<tool>`.
    pub origin: String,
    /// Whose the client was that registered it.
    pub owner: String,
}

/// Those of a tool's routes that are signed [`GRID`] and lead somewhere, from `prefix:<tool>` and `origin:<tool>`.
pub fn grid_routes(
    tool: &ToolName,
    routes: &HashMap<Vec<u8>, Vec<u8>>,
    origins: HashMap<Vec<u8>, Vec<u8>>,
) -> Vec<GridRoute> {
    let route = |(pattern, origin): (Vec<u8>, Vec<u8>)| {
        let signed: Origin = serde_json::from_slice(&origin).ok()?;
        let url = String::from_utf8(routes.get(&pattern)?.clone()).ok()?;
        let backend = url.parse().ok()?;
        let (pattern, origin) = (String::from_utf8(pattern).ok()?, String::from_utf8(origin).ok()?);
        (signed.source == GRID).then(|| GridRoute {
            tool: tool.clone(),
            pattern,
            url,
            backend,
            origin,
            owner: signed.owner,
        })
    };
    origins.into_iter().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_grid_signed_is_the_grids() {
        let hash = |fields: &[(&str, &str)]| {
            fields.iter().map(|(field, value)| (field.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let origin = |source| format!(r#"{{"source":"{source}","owner":"o","host":"h","since":1}}"#);
        let (grid, cluster) = (origin(GRID), origin("kube2proxy"));
        let url = "http://10.0.0.1:80";
        let tool = ToolName::try_new(b"hello").unwrap();
        let routes = hash(&[("/a", url), ("/b", url), ("/c", url), ("/d", "nonsense"), ("/f", url)]);
        let origins = hash(&[("/a", &grid), ("/b", &cluster), ("/c", "{"), ("/d", &grid), ("/e", &grid)]);
        let found = grid_routes(&tool, &routes, origins);
        assert_eq!(found.iter().map(|route| &*route.pattern).collect::<Vec<_>>(), ["/a"]);
        assert_eq!((&*found[0].url, &found[0].origin), (url, &grid));
    }
}
