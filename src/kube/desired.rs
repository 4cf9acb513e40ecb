//! What the cluster wants: the Services as they were listed and watched, and the routes that follow.

use std::collections::BTreeMap;

use kube::core::DynamicObject;

use super::service::{NamespaceTemplate, Rejection, ServiceRoute, route_of};
use crate::registry::Registered;
use crate::route::ToolName;

/// Namespace and name of a Service.
pub type ServiceId = (String, String);

/// A Service, or what keeps it from being a route.
#[derive(Clone, Debug)]
pub struct Seen {
    /// For Events about it.
    pub uid: String,
    /// What it means.
    pub meaning: Result<ServiceRoute, Rejection>,
    /// When it was created, in Unix seconds. The older of two has the route that both want.
    created: i64,
    /// When it came or was changed, in Unix seconds. Against other sources' routes the younger has it.
    claimed: u64,
}

impl Seen {
    /// Whether nothing has changed that matters here.
    fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.meaning == other.meaning
    }
}

/// All Services of one complete list, and what has been watched since.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    services: BTreeMap<ServiceId, Seen>,
    /// By tool: the Services that are named after it.
    tools: BTreeMap<ToolName, Vec<ServiceId>>,
}

/// A tool's routes, and the Services that come too late for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRoutes {
    /// With what each is registered as, its URL, and since when it is claimed.
    pub routes: Vec<(Registered, String, u64)>,
    /// With the namespace of the older one.
    pub outdone: Vec<(ServiceId, String)>,
}

impl Desired {
    /// Takes a Service in, or its new state. `changed_at` is when it was changed, in Unix seconds, if that was seen; else its
    /// creation counts.
    pub fn apply(
        &mut self,
        service: &DynamicObject,
        templates: &[NamespaceTemplate],
        changed_at: Option<u64>,
    ) -> ServiceId {
        let id = id_of(service);
        let created = service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let mut seen = Seen {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            meaning: route_of(service, templates),
            created,
            claimed: changed_at.unwrap_or_else(|| u64::try_from(created).unwrap_or(0)),
        };
        if let Some(before) = self.services.get(&id).filter(|before| before.is_same(&seen)) {
            seen.claimed = before.claimed;
        }
        self.remove(&id);
        if let Ok(route) = &seen.meaning {
            self.tools.entry(route.tool.clone()).or_default().push(id.clone());
        }
        self.services.insert(id.clone(), seen);
        id
    }

    /// Takes over when `older` saw the Services that have not changed since.
    pub fn keep_claims_of(&mut self, older: &Self) {
        for (id, seen) in &mut self.services {
            if let Some(before) = older.services.get(id).filter(|before| before.is_same(seen)) {
                seen.claimed = seen.claimed.max(before.claimed);
            }
        }
    }

    /// Forgets a Service.
    pub fn remove(&mut self, id: &ServiceId) {
        let Some(Seen { meaning: Ok(route), .. }) = self.services.remove(id) else { return };
        if let Some(ids) = self.tools.get_mut(&route.tool) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.tools.remove(&route.tool);
            }
        }
    }

    /// A Service as it was seen last.
    pub fn get(&self, id: &ServiceId) -> Option<&Seen> {
        self.services.get(id)
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceId, &Seen)> {
        self.services.iter()
    }

    /// All tools that have a route.
    pub fn tools(&self) -> impl Iterator<Item = &ToolName> {
        self.tools.keys()
    }

    /// A tool's routes: of Services that want the same the oldest, then the first by its namespace, has it.
    pub fn routes_of(&self, tool: &ToolName) -> ToolRoutes {
        let ids = self.tools.get(tool).map(Vec::as_slice).unwrap_or_default();
        let mut claims: Vec<_> = ids.iter().filter_map(|id| Some((id, self.services.get(id)?))).collect();
        claims.sort_by(|(a, a_seen), (b, b_seen)| (a_seen.created, a).cmp(&(b_seen.created, b)));
        let mut found = ToolRoutes::default();
        for (id, seen) in claims {
            let Ok(route) = &seen.meaning else { continue };
            let pattern = route.pattern.as_str();
            if let Some((first, ..)) = found.routes.iter().find(|(first, ..)| first.pattern == pattern) {
                found.outdone.push((id.clone(), first.namespace.clone()));
                continue;
            }
            let registered = Registered { namespace: id.0.clone(), name: id.1.clone(), pattern: pattern.to_owned() };
            found.routes.push((registered, route.backend.to_string(), seen.claimed));
        }
        found
    }
}

/// Namespace and name.
pub fn id_of(service: &DynamicObject) -> ServiceId {
    (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn templates() -> Vec<NamespaceTemplate> {
        ["{tool}", "tool-{tool}"].map(|text| NamespaceTemplate::parse(text).unwrap()).into()
    }

    fn service(namespace: &str, name: &str, path: &str, created: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": namespace, "name": name, "uid": "u", "creationTimestamp": created,
                "labels": {"toollabs-proxy-path": path},
            },
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
        }))
        .unwrap()
    }

    fn tool() -> ToolName {
        ToolName::try_new(b"hello").unwrap()
    }

    #[test]
    fn the_older_of_two_has_the_route_and_the_other_gets_it_after() {
        let mut desired = Desired::default();
        desired.apply(&service("hello", "hello", "", "2026-01-02T00:00:00Z"), &templates(), None);
        desired.apply(&service("tool-hello", "hello", "", "2026-01-01T00:00:00Z"), &templates(), None);
        let found = desired.routes_of(&tool());
        assert_eq!(found.routes.len(), 1);
        assert_eq!(found.routes[0].0.to_string(), "tool-hello/hello/.*");
        assert_eq!(found.outdone, [(("hello".into(), "hello".into()), "tool-hello".into())]);
        desired.remove(&("tool-hello".into(), "hello".into()));
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes[0].0.to_string(), found.outdone.len()), ("hello/hello/.*".into(), 0));
    }

    #[test]
    fn two_with_different_paths_both_have_one() {
        let mut desired = Desired::default();
        for (namespace, path) in [("hello", ""), ("tool-hello", "api")] {
            desired.apply(&service(namespace, "hello", path, "2026-01-01T00:00:00Z"), &templates(), None);
        }
        let found = desired.routes_of(&tool());
        let members: Vec<_> = found.routes.iter().map(|(registered, ..)| registered.to_string()).collect();
        assert_eq!((members, found.outdone.len()), (vec!["hello/hello/.*".into(), "tool-hello/hello/api.*".into()], 0));
    }

    #[test]
    fn a_changed_service_leaves_nothing_of_what_it_was() {
        let mut desired = Desired::default();
        let created = "2026-01-01T00:00:00Z";
        desired.apply(&service("hello", "hello", "", created), &templates(), None);
        assert_eq!(desired.routes_of(&tool()).routes[0].2, 1_767_225_600);
        desired.apply(&service("hello", "hello", "api", created), &templates(), Some(7));
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes.len(), &*found.routes[0].0.pattern, found.routes[0].2), (1, "/api.*", 7));
        // What changes nothing here, such as its status, claims nothing anew; nor does another list.
        desired.apply(&service("hello", "hello", "api", created), &templates(), Some(8));
        assert_eq!(desired.routes_of(&tool()).routes[0].2, 7);
        let mut listed = Desired::default();
        listed.apply(&service("hello", "hello", "api", "1970-01-01T00:00:01Z"), &templates(), None);
        listed.keep_claims_of(&desired);
        assert_eq!(listed.routes_of(&tool()).routes[0].2, 7);
        let mut headless = service("hello", "hello", "", created);
        headless.data = json!({"spec": {"clusterIP": "None"}});
        let id = desired.apply(&headless, &templates(), None);
        assert_eq!((desired.tools().count(), desired.services().count()), (0, 1));
        assert!(desired.get(&id).unwrap().meaning.is_err());
        desired.remove(&id);
        assert_eq!(desired.services().count(), 0);
    }

    #[test]
    fn a_service_of_another_namespace_is_no_ones_route() {
        let mut desired = Desired::default();
        desired.apply(&service("tool-evil", "hello", "", "2020-01-01T00:00:00Z"), &templates(), None);
        assert_eq!(desired.routes_of(&tool()), ToolRoutes::default());
    }
}
