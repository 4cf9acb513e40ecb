//! What the cluster wants: the Services as they were listed and watched, and the routes that follow.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::DynamicObject;

use super::service::{NamespaceTemplate, Rejection, ServiceRoute, route_of};
use crate::registry::Registered;
use crate::route::ToolName;

/// Namespace and name of a Service.
pub type ServiceId = (String, String);

/// More selectors than these there cannot be: each is a bit.
pub const MAX_SELECTORS: usize = 32;

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
    /// Its resourceVersion, 0 if that is no number.
    version: u64,
}

/// A Service as each selector that selects it has told it last.
#[derive(Clone, Debug, Default)]
struct Views(Vec<(usize, Seen)>);

impl Seen {
    /// Reads a Service. `changed_at` is when it was changed, in Unix seconds, if that was seen; else its creation counts.
    pub fn read(service: &DynamicObject, templates: &[NamespaceTemplate], changed_at: Option<u64>) -> Self {
        let created = service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            meaning: route_of(service, templates),
            created,
            claimed: changed_at.unwrap_or_else(|| u64::try_from(created).unwrap_or(0)),
            version: service.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }

    /// Whether nothing has changed that matters here.
    fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.meaning == other.meaning
    }

    /// Grows with time: two watches of one Service are not in step.
    fn age(&self) -> (i64, u64) {
        (self.created, self.version)
    }

    /// Where requests go.
    fn address(&self) -> Option<String> {
        self.meaning.as_ref().ok().map(|route| route.backend.to_string())
    }
}

impl Views {
    fn newest(&self) -> Option<&Seen> {
        self.0.iter().map(|(_, seen)| seen).max_by_key(|seen| seen.age())
    }

    fn of(&self, selector: usize) -> Option<&Seen> {
        self.0.iter().find(|(of, _)| *of == selector).map(|(_, seen)| seen)
    }

    fn set(&mut self, selector: usize, seen: Seen) {
        self.0.retain(|(of, _)| *of != selector);
        push_one(&mut self.0, (selector, seen));
    }

    /// Whoever has told less than this selector had is behind, and will tell that as well.
    fn remove(&mut self, selector: usize) {
        let Some(index) = self.0.iter().position(|(of, _)| *of == selector) else { return };
        let (_, gone) = self.0.swap_remove(index);
        for (_, seen) in self.0.iter_mut().filter(|(_, seen)| seen.age() < gone.age()) {
            *seen = gone.clone();
        }
    }
}

/// All Services of complete lists, one by each selector, and what has been watched since.
#[derive(Clone, Debug)]
pub struct Desired {
    services: BTreeMap<ServiceId, Views>,
    /// By tool: the Services that are named after it.
    tools: BTreeMap<ToolName, Vec<ServiceId>>,
    /// By URL: the Services that are there.
    addresses: BTreeMap<String, Vec<ServiceId>>,
    /// The selectors that there is no complete list of yet.
    missing: u32,
}

/// A tool's routes, and the Services that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRoutes {
    /// With what each is registered as, its URL, and since when it is claimed.
    pub routes: Vec<(Registered, String, u64)>,
    /// Because of another Service.
    pub outdone: Vec<(ServiceId, Rejection)>,
}

impl Desired {
    /// Nothing is known by any of so many selectors.
    pub fn new(selectors: usize) -> Self {
        let missing = (0..selectors.min(MAX_SELECTORS)).fold(0, |bits, selector| bits | bit(selector));
        Self { services: BTreeMap::new(), tools: BTreeMap::new(), addresses: BTreeMap::new(), missing }
    }

    /// Whether there has been a complete list by each selector. Before, it says nothing of what is not in it.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Takes a Service in, or its new state, that this selector's watch tells.
    pub fn put(&mut self, selector: usize, id: ServiceId, seen: Seen) {
        let known = self.services.get(&id).and_then(|views| views.of(selector));
        if known.is_none_or(|known| known.age() <= seen.age() || known.uid != seen.uid) {
            self.set(selector, id, seen);
        }
    }

    fn set(&mut self, selector: usize, id: ServiceId, mut seen: Seen) {
        self.change(&id, |views| {
            if let Some(before) = views.newest().filter(|before| seen.is_same(before)) {
                seen.claimed = before.claimed;
            }
            views.set(selector, seen);
        });
    }

    /// This selector selects it no more. It is gone if no other does.
    pub fn remove(&mut self, selector: usize, id: &ServiceId) {
        if self.services.contains_key(id) {
            self.change(id, |views| views.remove(selector));
        }
    }

    /// This selector selects these, and no others. Whatever was told before, also of a later version: etcd may have been
    /// restored.
    pub fn replace(&mut self, selector: usize, listed: Vec<(ServiceId, Seen)>) {
        let ids: BTreeSet<ServiceId> = listed.iter().map(|(id, _)| id.clone()).collect();
        let lost =
            |(id, views): (&ServiceId, &Views)| (views.of(selector).is_some() && !ids.contains(id)).then(|| id.clone());
        let lost: Vec<ServiceId> = self.services.iter().filter_map(lost).collect();
        for id in lost {
            self.remove(selector, &id);
        }
        for (id, seen) in listed {
            self.set(selector, id, seen);
        }
        self.missing &= !bit(selector);
    }

    fn change(&mut self, id: &ServiceId, change: impl FnOnce(&mut Views)) {
        let mut views = self.services.remove(id).unwrap_or_default();
        if let Some(seen) = views.newest() {
            if let Some(address) = seen.address() {
                drop_from(&mut self.addresses, &address, id);
            }
            if let Ok(route) = &seen.meaning {
                drop_from(&mut self.tools, &route.tool, id);
            }
        }
        change(&mut views);
        let Some(seen) = views.newest() else { return };
        if let Ok(route) = &seen.meaning {
            push_one(self.tools.entry(route.tool.clone()).or_default(), id.clone());
        }
        if let Some(address) = seen.address() {
            push_one(self.addresses.entry(address).or_default(), id.clone());
        }
        self.services.insert(id.clone(), views);
    }

    /// The tools whose routes may depend on a Service: its own, and those of others at the same address.
    pub fn tools_beside(&self, id: &ServiceId) -> Vec<ToolName> {
        let tool = |id: &ServiceId| Some(self.get(id)?.meaning.as_ref().ok()?.tool.clone());
        let Some(address) = self.get(id).and_then(Seen::address) else { return Vec::new() };
        self.addresses.get(&address).into_iter().flatten().filter_map(tool).collect()
    }

    /// Whether a tool has Services.
    pub fn has(&self, tool: &ToolName) -> bool {
        self.tools.contains_key(tool)
    }

    /// Another tool's Service that has the address of this one, and is younger: the API server gives an address to one at a
    /// time, so the older is gone, which is not known here yet.
    fn successor_of(&self, id: &ServiceId, seen: &Seen, tool: &ToolName) -> Option<&ServiceId> {
        let mut others = self.addresses.get(&seen.address()?)?.iter().filter(|other| *other != id);
        let is_successor = |other: &&ServiceId| {
            self.get(other).is_some_and(|found| {
                let is_anothers = found.meaning.as_ref().is_ok_and(|route| route.tool != *tool);
                is_anothers && (found.created, *other) > (seen.created, id)
            })
        };
        others.find(is_successor)
    }

    /// A Service as it was seen last.
    pub fn get(&self, id: &ServiceId) -> Option<&Seen> {
        self.services.get(id)?.newest()
    }

    /// All Services.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceId, &Seen)> {
        self.services.iter().filter_map(|(id, views)| Some((id, views.newest()?)))
    }

    /// All tools that have a route.
    pub fn tools(&self) -> impl Iterator<Item = &ToolName> {
        self.tools.keys()
    }

    /// A tool's routes: of Services that want the same the oldest, then the first by its namespace, has it.
    pub fn routes_of(&self, tool: &ToolName) -> ToolRoutes {
        let ids = self.tools.get(tool).map(Vec::as_slice).unwrap_or_default();
        let mut claims: Vec<_> = ids.iter().filter_map(|id| Some((id, self.get(id)?))).collect();
        claims.sort_by(|(a, a_seen), (b, b_seen)| (a_seen.created, a).cmp(&(b_seen.created, b)));
        let mut found = ToolRoutes::default();
        for (id, seen) in claims {
            let Ok(route) = &seen.meaning else { continue };
            if let Some((namespace, name)) = self.successor_of(id, seen, tool) {
                found.outdone.push((id.clone(), Rejection::AddressTaken(format!("{namespace}/{name}"))));
                continue;
            }
            let pattern = route.pattern.as_str();
            if let Some((first, ..)) = found.routes.iter().find(|(first, ..)| first.pattern == pattern) {
                found.outdone.push((id.clone(), Rejection::AlreadyClaimed(first.namespace.clone())));
                continue;
            }
            let registered = Registered { namespace: id.0.clone(), name: id.1.clone(), pattern: pattern.to_owned() };
            found.routes.push((registered, route.backend.to_string(), seen.claimed));
        }
        found
    }
}

fn bit(selector: usize) -> u32 {
    u32::try_from(selector).ok().and_then(|selector| 1_u32.checked_shl(selector)).unwrap_or(0)
}

/// Most lists have one entry, of thousands: room for more is not kept.
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

    fn put(desired: &mut Desired, selector: usize, service: &DynamicObject, changed_at: Option<u64>) -> ServiceId {
        let id = id_of(service);
        desired.put(selector, id.clone(), Seen::read(service, &templates(), changed_at));
        id
    }

    fn listed(services: &[DynamicObject]) -> Vec<(ServiceId, Seen)> {
        services.iter().map(|service| (id_of(service), Seen::read(service, &templates(), None))).collect()
    }

    fn with_version(mut service: DynamicObject, version: &str) -> DynamicObject {
        service.metadata.resource_version = Some(version.into());
        service
    }

    fn patterns(desired: &Desired) -> Vec<String> {
        desired.routes_of(&tool()).routes.into_iter().map(|(registered, ..)| registered.pattern).collect()
    }

    #[test]
    fn the_older_of_two_has_the_route_and_the_other_gets_it_after() {
        let mut desired = Desired::new(1);
        put(&mut desired, 0, &service("hello", "hello", "", "2026-01-02T00:00:00Z"), None);
        put(&mut desired, 0, &service("tool-hello", "hello", "", "2026-01-01T00:00:00Z"), None);
        let found = desired.routes_of(&tool());
        assert_eq!(found.routes.len(), 1);
        assert_eq!(found.routes[0].0.to_string(), "tool-hello/hello/.*");
        let claimed = Rejection::AlreadyClaimed("tool-hello".into());
        assert_eq!(found.outdone, [(("hello".into(), "hello".into()), claimed)]);
        desired.remove(0, &("tool-hello".into(), "hello".into()));
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes[0].0.to_string(), found.outdone.len()), ("hello/hello/.*".into(), 0));
    }

    #[test]
    fn two_with_different_paths_both_have_one() {
        let mut desired = Desired::new(1);
        for (namespace, path) in [("hello", ""), ("tool-hello", "api")] {
            put(&mut desired, 0, &service(namespace, "hello", path, "2026-01-01T00:00:00Z"), None);
        }
        let found = desired.routes_of(&tool());
        let members: Vec<_> = found.routes.iter().map(|(registered, ..)| registered.to_string()).collect();
        assert_eq!((members, found.outdone.len()), (vec!["hello/hello/.*".into(), "tool-hello/hello/api.*".into()], 0));
    }

    #[test]
    fn a_changed_service_leaves_nothing_of_what_it_was() {
        let mut desired = Desired::new(1);
        let created = "2026-01-01T00:00:00Z";
        put(&mut desired, 0, &service("hello", "hello", "", created), None);
        assert_eq!(desired.routes_of(&tool()).routes[0].2, 1_767_225_600);
        let api = service("hello", "hello", "api", created);
        put(&mut desired, 0, &api, Some(7));
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes.len(), &*found.routes[0].0.pattern, found.routes[0].2), (1, "/api.*", 7));
        // What changes nothing here, such as its status, claims nothing anew; nor does another list.
        put(&mut desired, 0, &api, Some(8));
        desired.replace(0, listed(std::slice::from_ref(&api)));
        assert_eq!(desired.routes_of(&tool()).routes[0].2, 7);
        let mut headless = service("hello", "hello", "", created);
        headless.data = json!({"spec": {"clusterIP": "None"}});
        let id = put(&mut desired, 0, &headless, None);
        assert_eq!((desired.tools().count(), desired.services().count()), (0, 1));
        assert!(desired.get(&id).unwrap().meaning.is_err());
        desired.remove(0, &id);
        assert_eq!((desired.services().count(), desired.addresses.len()), (0, 0));
    }

    #[test]
    fn a_service_of_another_namespace_is_no_ones_route() {
        let mut desired = Desired::new(1);
        put(&mut desired, 0, &service("tool-evil", "hello", "", "2020-01-01T00:00:00Z"), None);
        assert_eq!(desired.routes_of(&tool()), ToolRoutes::default());
    }

    #[test]
    fn a_service_that_two_selectors_select_is_one_and_is_there_until_neither_does() {
        let mut desired = Desired::new(2);
        let created = "2026-01-01T00:00:00Z";
        let service = |path, version| with_version(service("hello", "hello", path, created), version);
        desired.replace(0, listed(&[service("", "5")]));
        assert!(!desired.is_complete());
        desired.replace(1, listed(&[service("", "5")]));
        assert!(desired.is_complete());
        assert_eq!((desired.services().count(), patterns(&desired)), (1, vec![".*".into()]));
        // What one watch tells late is not news.
        put(&mut desired, 0, &service("api", "9"), Some(7));
        let id = put(&mut desired, 1, &service("", "8"), Some(7));
        assert_eq!(patterns(&desired), ["/api.*"]);
        desired.remove(0, &id);
        assert_eq!(patterns(&desired), ["/api.*"], "the other selects it still");
        desired.replace(0, Vec::new());
        assert_eq!(patterns(&desired).len(), 1, "one selector's list is not the other's");
        desired.replace(1, Vec::new());
        assert_eq!(patterns(&desired).len(), 0);
        // Made anew in another cluster, whose versions begin again.
        put(&mut desired, 0, &service("api", "9"), None);
        let mut anew = super::tests::service("hello", "hello", "", "2026-01-02T00:00:00Z");
        anew.metadata.uid = Some("v".into());
        put(&mut desired, 0, &with_version(anew, "1"), None);
        assert_eq!(patterns(&desired), [".*"]);
    }

    #[test]
    fn after_etcd_was_restored_lists_count_whatever_their_versions_are() {
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
    fn made_anew_within_a_second_it_is_not_what_a_late_watch_tells() {
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
    fn of_two_services_at_one_address_the_younger_has_it() {
        let mut desired = Desired::new(1);
        let other = ToolName::try_new(b"other").unwrap();
        let id = put(&mut desired, 0, &service("hello", "hello", "", "2026-01-01T00:00:00Z"), None);
        let younger = put(&mut desired, 0, &service("other", "other", "", "2026-01-02T00:00:00Z"), None);
        let found = desired.routes_of(&tool());
        assert_eq!((found.routes.len(), &found.outdone[0].0), (0, &id));
        assert_eq!(found.outdone[0].1, Rejection::AddressTaken("other/other".into()));
        assert_eq!(desired.routes_of(&other).routes.len(), 1);
        assert_eq!(desired.tools_beside(&younger).len(), 2);
        desired.remove(0, &younger);
        assert_eq!(desired.routes_of(&tool()).routes.len(), 1);
    }
}
