//! The desired routes: all Services as listed and watched, and the routes that follow from them.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::DynamicObject;

use super::service::{NamespaceTemplate, ServiceRejection, ServiceRoute, route_of};
use crate::registry::Registered;
use crate::route::ToolName;

/// Namespace and name of a Service.
pub type ServiceId = (String, String);

/// The most selectors: each is a bit of a `u32`.
pub const MAX_SELECTORS: usize = 32;

/// A Service as last listed or watched.
#[derive(Clone, Debug)]
pub struct ObservedService {
    /// The Service's `metadata.uid`, for Events about it.
    pub uid: String,
    /// The Service's route, or why it has none.
    pub route: Result<ServiceRoute, ServiceRejection>,
    /// Creation time, in Unix seconds. Of two Services with the same tool and pattern the older wins.
    created: i64,
    /// Time of the last change, in Unix seconds. Against routes of other sources the most recent wins.
    claimed_at: u64,
    /// The resourceVersion, 0 if it is not a number.
    version: u64,
}

/// The last state of a Service by each selector that selects it.
#[derive(Clone, Debug, Default)]
struct SelectorViews(Vec<(usize, ObservedService)>);

impl ObservedService {
    /// Reads a Service. `changed_at` is the time of the change, in Unix seconds, if a watch saw it; else the creation time counts.
    pub fn read(service: &DynamicObject, templates: &[NamespaceTemplate], changed_at: Option<u64>) -> Self {
        let created = service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            route: route_of(service, templates),
            created,
            claimed_at: changed_at.unwrap_or_else(|| u64::try_from(created).unwrap_or(0)),
            version: service.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }

    /// Whether the two do not differ in anything that affects routes.
    fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.route == other.route
    }

    /// Grows with time. Tells which of two watches, which are not synchronized, has the newer state.
    fn age(&self) -> (i64, u64) {
        (self.created, self.version)
    }

    /// The URL of the backend.
    fn address(&self) -> Option<String> {
        self.route.as_ref().ok().map(|route| route.backend.to_string())
    }
}

impl SelectorViews {
    fn newest(&self) -> Option<&ObservedService> {
        self.0.iter().map(|(_, observed)| observed).max_by_key(|observed| observed.age())
    }

    fn of(&self, selector: usize) -> Option<&ObservedService> {
        self.0.iter().find(|(of, _)| *of == selector).map(|(_, observed)| observed)
    }

    fn set(&mut self, selector: usize, observed: ObservedService) {
        self.0.retain(|(of, _)| *of != selector);
        push_one(&mut self.0, (selector, observed));
    }

    /// Drops a selector's state. A selector with an older state lags behind, and takes over the removed one until it catches up.
    fn remove(&mut self, selector: usize) {
        let Some(index) = self.0.iter().position(|(of, _)| *of == selector) else { return };
        let (_, gone) = self.0.swap_remove(index);
        for (_, observed) in self.0.iter_mut().filter(|(_, observed)| observed.age() < gone.age()) {
            *observed = gone.clone();
        }
    }
}

/// All Services: a complete list by each selector, and the changes watched since.
#[derive(Clone, Debug)]
pub struct Desired {
    services: BTreeMap<ServiceId, SelectorViews>,
    /// Services by their tool.
    tools: BTreeMap<ToolName, Vec<ServiceId>>,
    /// Services by their backend's URL.
    addresses: BTreeMap<String, Vec<ServiceId>>,
    /// The selectors without a complete list yet, a bit each.
    missing: u32,
}

/// A tool's routes, and the Services of the tool that have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRoutes {
    /// The registration, the URL and the claim time, in Unix seconds, of each.
    pub routes: Vec<(Registered, String, u64)>,
    /// Services that lost their route to another Service.
    pub superseded: Vec<(ServiceId, ServiceRejection)>,
}

impl Desired {
    /// No Services yet, for this number of selectors.
    pub fn new(selectors: usize) -> Self {
        let missing = (0..selectors.min(MAX_SELECTORS)).fold(0, |bits, selector| bits | bit(selector));
        Self { services: BTreeMap::new(), tools: BTreeMap::new(), addresses: BTreeMap::new(), missing }
    }

    /// Whether each selector has had a complete list. Before that, a missing Service may exist.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Adds a Service, or its new state, from a selector's watch.
    pub fn put(&mut self, selector: usize, id: ServiceId, observed: ObservedService) {
        let known = self.services.get(&id).and_then(|views| views.of(selector));
        if known.is_none_or(|known| known.age() <= observed.age() || known.uid != observed.uid) {
            self.set(selector, id, observed);
        }
    }

    fn set(&mut self, selector: usize, id: ServiceId, mut observed: ObservedService) {
        self.change(&id, |views| {
            if let Some(before) = views.newest().filter(|before| observed.is_same(before)) {
                observed.claimed_at = before.claimed_at;
            }
            views.set(selector, observed);
        });
    }

    /// Removes a Service from a selector. Without another selector that has it, the Service is gone.
    pub fn remove(&mut self, selector: usize, id: &ServiceId) {
        if self.services.contains_key(id) {
            self.change(id, |views| views.remove(selector));
        }
    }

    /// Takes a complete list of a selector. It overrides earlier states, also those of a later version: etcd may have been
    /// restored from a backup.
    pub fn replace(&mut self, selector: usize, listed: Vec<(ServiceId, ObservedService)>) {
        let ids: BTreeSet<ServiceId> = listed.iter().map(|(id, _)| id.clone()).collect();
        let lost = |(id, views): (&ServiceId, &SelectorViews)| {
            (views.of(selector).is_some() && !ids.contains(id)).then(|| id.clone())
        };
        let lost: Vec<ServiceId> = self.services.iter().filter_map(lost).collect();
        for id in lost {
            self.remove(selector, &id);
        }
        for (id, observed) in listed {
            self.set(selector, id, observed);
        }
        self.missing &= !bit(selector);
    }

    fn change(&mut self, id: &ServiceId, change: impl FnOnce(&mut SelectorViews)) {
        let mut views = self.services.remove(id).unwrap_or_default();
        if let Some(observed) = views.newest() {
            if let Some(address) = observed.address() {
                drop_from(&mut self.addresses, &address, id);
            }
            if let Ok(route) = &observed.route {
                drop_from(&mut self.tools, &route.tool, id);
            }
        }
        change(&mut views);
        let Some(observed) = views.newest() else { return };
        if let Ok(route) = &observed.route {
            push_one(self.tools.entry(route.tool.clone()).or_default(), id.clone());
        }
        if let Some(address) = observed.address() {
            push_one(self.addresses.entry(address).or_default(), id.clone());
        }
        self.services.insert(id.clone(), views);
    }

    /// Tools with routes that may depend on a Service: its own tool, and tools with Services at the same address.
    pub fn affected_tools(&self, id: &ServiceId) -> Vec<ToolName> {
        let tool = |id: &ServiceId| Some(self.get(id)?.route.as_ref().ok()?.tool.clone());
        let Some(address) = self.get(id).and_then(ObservedService::address) else { return Vec::new() };
        self.addresses.get(&address).into_iter().flatten().filter_map(tool).collect()
    }

    /// Whether a tool has Services.
    pub fn has(&self, tool: &ToolName) -> bool {
        self.tools.contains_key(tool)
    }

    /// A newer Service of another tool at the same address. The API server gives an address to one Service at a time, so the
    /// older one is gone, although its deletion has not arrived here yet.
    fn successor_of(&self, id: &ServiceId, observed: &ObservedService, tool: &ToolName) -> Option<&ServiceId> {
        let mut others = self.addresses.get(&observed.address()?)?.iter().filter(|other| *other != id);
        let is_successor = |other: &&ServiceId| {
            self.get(other).is_some_and(|found| {
                let is_other_tool = found.route.as_ref().is_ok_and(|route| route.tool != *tool);
                is_other_tool && (found.created, *other) > (observed.created, id)
            })
        };
        others.find(is_successor)
    }

    /// The newest state of a Service.
    pub fn get(&self, id: &ServiceId) -> Option<&ObservedService> {
        self.services.get(id)?.newest()
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceId, &ObservedService)> {
        self.services.iter().filter_map(|(id, views)| Some((id, views.newest()?)))
    }

    /// All tools that have a route.
    pub fn tools(&self) -> impl Iterator<Item = &ToolName> {
        self.tools.keys()
    }

    /// A tool's routes. Of several Services with the same pattern the oldest wins, then the first by namespace.
    pub fn routes_of(&self, tool: &ToolName) -> ToolRoutes {
        let ids = self.tools.get(tool).map(Vec::as_slice).unwrap_or_default();
        let mut claims: Vec<_> = ids.iter().filter_map(|id| Some((id, self.get(id)?))).collect();
        claims.sort_by(|(a, a_observed), (b, b_observed)| (a_observed.created, a).cmp(&(b_observed.created, b)));
        let mut found = ToolRoutes::default();
        for (id, observed) in claims {
            let Ok(route) = &observed.route else { continue };
            if let Some((namespace, name)) = self.successor_of(id, observed, tool) {
                found.superseded.push((id.clone(), ServiceRejection::AddressTaken(format!("{namespace}/{name}"))));
                continue;
            }
            let pattern = route.pattern.as_str();
            if let Some((first, ..)) = found.routes.iter().find(|(first, ..)| first.pattern == pattern) {
                found.superseded.push((id.clone(), ServiceRejection::AlreadyClaimed(first.namespace.clone())));
                continue;
            }
            let registered = Registered { namespace: id.0.clone(), name: id.1.clone(), pattern: pattern.to_owned() };
            found.routes.push((registered, route.backend.to_string(), observed.claimed_at));
        }
        found
    }
}

fn bit(selector: usize) -> u32 {
    u32::try_from(selector).ok().and_then(|selector| 1_u32.checked_shl(selector)).unwrap_or(0)
}

/// Pushes without spare capacity: there are thousands of lists, and most have one entry.
pub(super) fn push_one<T>(list: &mut Vec<T>, entry: T) {
    list.reserve_exact(1);
    list.push(entry);
}

fn drop_from<K: Ord + Clone>(map: &mut BTreeMap<K, Vec<ServiceId>>, key: &K, id: &ServiceId) {
    let Some(ids) = map.get_mut(key) else { return };
    ids.retain(|other| other != id);
    if ids.is_empty() {
        map.remove(key);
    }
}

/// The namespace and name of a Service.
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

    fn put(desired: &mut Desired, selector: usize, service: &DynamicObject, changed_at: Option<u64>) -> ServiceId {
        let id = id_of(service);
        desired.put(selector, id.clone(), ObservedService::read(service, &templates(), changed_at));
        id
    }

    fn listed(services: &[DynamicObject]) -> Vec<(ServiceId, ObservedService)> {
        services.iter().map(|service| (id_of(service), ObservedService::read(service, &templates(), None))).collect()
    }

    fn with_version(mut service: DynamicObject, version: &str) -> DynamicObject {
        service.metadata.resource_version = Some(version.into());
        service
    }

    fn patterns(desired: &Desired) -> Vec<String> {
        desired.routes_of(&tool()).routes.into_iter().map(|(registered, ..)| registered.pattern).collect()
    }

    #[test]
    fn oldest_service_wins_until_it_is_deleted() {
        let mut desired = Desired::new(1);
        put(&mut desired, 0, &service("hello", "hello", "", "2026-01-02T00:00:00Z"), None);
        put(&mut desired, 0, &service("tool-hello", "hello", "", "2026-01-01T00:00:00Z"), None);
        let found = desired.routes_of(&tool());
        assert_eq!(found.routes.len(), 1);
        assert_eq!(found.routes[0].0.to_string(), "tool-hello/hello/.*");
        let claimed = ServiceRejection::AlreadyClaimed("tool-hello".into());
        assert_eq!(found.superseded, [(("hello".into(), "hello".into()), claimed)]);
        desired.remove(0, &("tool-hello".into(), "hello".into()));
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes[0].0.to_string(), found.superseded.len()), ("hello/hello/.*".into(), 0));
    }

    #[test]
    fn services_with_different_paths_both_have_a_route() {
        let mut desired = Desired::new(1);
        for (namespace, path) in [("hello", ""), ("tool-hello", "api")] {
            put(&mut desired, 0, &service(namespace, "hello", path, "2026-01-01T00:00:00Z"), None);
        }
        let found = desired.routes_of(&tool());
        let members: Vec<_> = found.routes.iter().map(|(registered, ..)| registered.to_string()).collect();
        assert_eq!(
            (members, found.superseded.len()),
            (vec!["hello/hello/.*".into(), "tool-hello/hello/api.*".into()], 0)
        );
    }

    #[test]
    fn changed_service_replaces_its_old_route() {
        let mut desired = Desired::new(1);
        let created = "2026-01-01T00:00:00Z";
        put(&mut desired, 0, &service("hello", "hello", "", created), None);
        assert_eq!(desired.routes_of(&tool()).routes[0].2, 1_767_225_600);
        let api = service("hello", "hello", "api", created);
        put(&mut desired, 0, &api, Some(7));
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes.len(), &*found.routes[0].0.pattern, found.routes[0].2), (1, "/api.*", 7));
        // A change that does not affect the route, such as the status, keeps the claim time; so does another list.
        put(&mut desired, 0, &api, Some(8));
        desired.replace(0, listed(std::slice::from_ref(&api)));
        assert_eq!(desired.routes_of(&tool()).routes[0].2, 7);
        let mut headless = service("hello", "hello", "", created);
        headless.data = json!({"spec": {"clusterIP": "None"}});
        let id = put(&mut desired, 0, &headless, None);
        assert_eq!((desired.tools().count(), desired.services().count()), (0, 1));
        assert!(desired.get(&id).unwrap().route.is_err());
        desired.remove(0, &id);
        assert_eq!((desired.services().count(), desired.addresses.len()), (0, 0));
    }

    #[test]
    fn service_in_a_foreign_namespace_has_no_route() {
        let mut desired = Desired::new(1);
        put(&mut desired, 0, &service("tool-evil", "hello", "", "2020-01-01T00:00:00Z"), None);
        assert_eq!(desired.routes_of(&tool()), ToolRoutes::default());
    }

    #[test]
    fn service_of_two_selectors_stays_until_neither_selects_it() {
        let mut desired = Desired::new(2);
        let created = "2026-01-01T00:00:00Z";
        let service = |path, version| with_version(service("hello", "hello", path, created), version);
        desired.replace(0, listed(&[service("", "5")]));
        assert!(!desired.is_complete());
        desired.replace(1, listed(&[service("", "5")]));
        assert!(desired.is_complete());
        assert_eq!((desired.services().count(), patterns(&desired)), (1, vec![".*".into()]));
        // A late event of one watch changes nothing.
        put(&mut desired, 0, &service("api", "9"), Some(7));
        let id = put(&mut desired, 1, &service("", "8"), Some(7));
        assert_eq!(patterns(&desired), ["/api.*"]);
        desired.remove(0, &id);
        assert_eq!(patterns(&desired), ["/api.*"], "the other still selects it");
        desired.replace(0, Vec::new());
        assert_eq!(patterns(&desired).len(), 1, "one selector's list is not the other's");
        desired.replace(1, Vec::new());
        assert_eq!(patterns(&desired).len(), 0);
        // Recreated in another cluster, where versions start over.
        put(&mut desired, 0, &service("api", "9"), None);
        let mut anew = super::tests::service("hello", "hello", "", "2026-01-02T00:00:00Z");
        anew.metadata.uid = Some("v".into());
        put(&mut desired, 0, &with_version(anew, "1"), None);
        assert_eq!(patterns(&desired), [".*"]);
    }

    #[test]
    fn lists_after_an_etcd_restore_override_later_versions() {
        let mut desired = Desired::new(2);
        let created = "2026-01-01T00:00:00Z";
        let service = |path, version| with_version(service("hello", "hello", path, created), version);
        for selector in [0, 1] {
            desired.replace(selector, listed(&[service("", "5")]));
            put(&mut desired, selector, &service("api", "9"), Some(7));
        }
        assert_eq!(patterns(&desired), ["/api.*"]);
        desired.replace(0, listed(&[service("", "5")]));
        desired.replace(1, listed(&[service("", "5")]));
        assert_eq!(patterns(&desired), [".*"]);
    }

    #[test]
    fn late_watch_does_not_undo_a_recreation_within_a_second() {
        let mut desired = Desired::new(2);
        let created = "2026-01-01T00:00:00Z";
        let old = with_version(service("hello", "hello", "old", created), "5");
        let mut new = with_version(service("hello", "hello", "new", created), "8");
        new.metadata.uid = Some("v".into());
        desired.replace(0, Vec::new());
        desired.replace(1, Vec::new());
        let id = put(&mut desired, 0, &new, Some(7));
        put(&mut desired, 1, &old, Some(7));
        assert_eq!(patterns(&desired), ["/new.*"]);
        desired.remove(1, &id);
        assert_eq!(patterns(&desired), ["/new.*"]);
    }

    #[test]
    fn newest_service_at_an_address_wins() {
        let mut desired = Desired::new(1);
        let other = ToolName::try_new(b"other").unwrap();
        let id = put(&mut desired, 0, &service("hello", "hello", "", "2026-01-01T00:00:00Z"), None);
        let younger = put(&mut desired, 0, &service("other", "other", "", "2026-01-02T00:00:00Z"), None);
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes.len(), &found.superseded[0].0), (0, &id));
        assert_eq!(found.superseded[0].1, ServiceRejection::AddressTaken("other/other".into()));
        assert_eq!(desired.routes_of(&other).routes.len(), 1);
        assert_eq!(desired.affected_tools(&younger).len(), 2);
        desired.remove(0, &younger);
        assert_eq!(desired.routes_of(&tool()).routes.len(), 1);
    }
}
