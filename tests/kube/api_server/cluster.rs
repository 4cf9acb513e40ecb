//! The content of the cluster, and its history.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::fault::Break;

/// A namespace and a name.
type Id = (String, String);

/// An entry of the history, as watches see it.
pub enum Entry {
    /// A Service before and after a change; `None` if it did not exist.
    Change { before: Option<Value>, after: Option<Value> },
    /// For watches that allow it.
    Bookmark,
    /// For watches that were open.
    Break(Break),
}

pub struct Cluster {
    /// The latest resourceVersion.
    version: u64,
    services: BTreeMap<Id, Value>,
    /// Each with the resourceVersion after it.
    history: Vec<(u64, Entry)>,
    /// Watches from before this are too late.
    oldest: u64,
    pub page_size: usize,
    /// Remaining pages of lists, by their continue tokens.
    pages: BTreeMap<String, Page>,
    pub events: Vec<Value>,
}

/// The rest of a list.
#[derive(Clone)]
struct Page {
    version: u64,
    items: Vec<Value>,
}

/// Why a write is refused.
pub enum WriteError {
    NotFound,
    /// The invalid field.
    Invalid(&'static str),
}

/// `KEY=VALUE` of labels, all of them; without any, everything.
pub struct Selector(Vec<(String, String)>);

impl Selector {
    /// Reads a selector of equalities.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |text: &str| !text.is_empty() && !text.contains(['=', '!', '(', ' ']);
        let pair = |part: &str| part.split_once('=').filter(|(key, value)| plain(key) && plain(value)).map(owned);
        let owned_pairs: Option<Vec<_>> = text.split(',').filter(|part| !part.is_empty()).map(pair).collect();
        owned_pairs.map(Self)
    }

    pub fn selects(&self, service: &Value) -> bool {
        self.0.iter().all(|(key, value)| service["metadata"]["labels"][key.as_str()] == value.as_str())
    }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.into(), value.into())
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            version: 1000,
            services: BTreeMap::new(),
            history: Vec::new(),
            oldest: 0,
            page_size: usize::MAX,
            pages: BTreeMap::new(),
            events: Vec::new(),
        }
    }
}

impl Cluster {
    pub fn apply(&mut self, namespace: &str, name: &str, service: Value) {
        let (before, after) = self.put(namespace, name, service);
        self.history.push((self.version, Entry::Change { before, after: Some(after) }));
    }

    pub fn apply_silently(&mut self, namespace: &str, name: &str, service: Value) {
        self.put(namespace, name, service);
    }

    fn put(&mut self, namespace: &str, name: &str, mut service: Value) -> (Option<Value>, Value) {
        self.version += 1;
        let id = (namespace.to_owned(), name.to_owned());
        let before = self.services.get(&id).cloned();
        service["kind"] = json!("Service");
        service["apiVersion"] = json!("v1");
        self.fill_in(&mut service["metadata"], &id, before.as_ref());
        self.services.insert(id, service.clone());
        (before, service)
    }

    /// Fills in the metadata that each object has.
    fn fill_in(&self, metadata: &mut Value, (namespace, name): &Id, before: Option<&Value>) {
        let kept = |field: &str| before.map(|before| before["metadata"][field].clone()).filter(|kept| !kept.is_null());
        let now = Timestamp::from_second(Timestamp::now().as_second()).expect("a time").to_string();
        for (field, value) in [
            ("namespace", json!(namespace)),
            ("name", json!(name)),
            ("uid", kept("uid").unwrap_or_else(|| json!(format!("00000000-0000-0000-0000-{:012}", self.version)))),
            ("creationTimestamp", kept("creationTimestamp").unwrap_or_else(|| json!(now))),
        ] {
            if metadata[field].is_null() {
                metadata[field] = value;
            }
        }
        metadata["resourceVersion"] = json!(self.version.to_string());
    }

    pub fn delete(&mut self, namespace: &str, name: &str) -> bool {
        let Some(before) = self.services.remove(&(namespace.to_owned(), name.to_owned())) else { return false };
        self.version += 1;
        self.history.push((self.version, Entry::Change { before: Some(before), after: None }));
        true
    }

    pub fn delete_silently(&mut self, namespace: &str, name: &str) -> bool {
        self.version += 1;
        self.services.remove(&(namespace.to_owned(), name.to_owned())).is_some()
    }

    pub fn bookmark(&mut self) {
        self.history.push((self.version, Entry::Bookmark));
    }

    pub fn break_watches(&mut self, how: Break) {
        self.history.push((self.version, Entry::Break(how)));
    }

    pub fn forget_history(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.pages.clear();
    }

    /// A page of a list, with the token of the next one; `None` if the token is unknown or expired.
    pub fn list(&mut self, selector: &Selector, limit: usize, token: Option<&str>) -> Option<Value> {
        let page = match token {
            // A page can be requested again.
            Some(token) => self.pages.get(token)?.clone(),
            None => {
                let selected = self.services.values().filter(|service| selector.selects(service));
                Page { version: self.version, items: selected.cloned().collect() }
            }
        };
        let Page { version, mut items } = page;
        let rest = items.split_off(items.len().min(limit.min(self.page_size).max(1)));
        for item in &mut items {
            // As in real lists: the type of the items is that of the list.
            let item = item.as_object_mut().expect("an object");
            item.remove("kind");
            item.remove("apiVersion");
        }
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if !rest.is_empty() {
            let token = format!("{version}+{}", self.pages.len());
            metadata["continue"] = json!(token);
            metadata["remainingItemCount"] = json!(rest.len());
            self.pages.insert(token, Page { version, items: rest });
        }
        Some(json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// The position in the history after this resourceVersion; `None` if it is too old.
    pub fn position_after(&self, version: u64) -> Option<usize> {
        (version >= self.oldest).then(|| self.history.partition_point(|(after, _)| *after <= version))
    }

    /// The length of the history.
    pub fn position(&self) -> usize {
        self.history.len()
    }

    /// The history from a position.
    pub fn history_from(&self, position: usize) -> &[(u64, Entry)] {
        self.history.get(position..).unwrap_or_default()
    }

    pub fn create_event(&mut self, namespace: &str, mut event: Value) -> Result<Value, WriteError> {
        if event["regarding"]["namespace"] != namespace {
            return Err(WriteError::Invalid("regarding.namespace"));
        }
        let name = event["metadata"]["name"].as_str().ok_or(WriteError::Invalid("metadata.name"))?.to_owned();
        self.version += 1;
        self.fill_in(&mut event["metadata"], &(namespace.to_owned(), name), None);
        self.events.push(event.clone());
        Ok(event)
    }

    pub fn patch_event(&mut self, namespace: &str, name: &str, patch: &Value) -> Result<Value, WriteError> {
        let is_it =
            |event: &&mut Value| event["metadata"]["namespace"] == namespace && event["metadata"]["name"] == name;
        let event = self.events.iter_mut().find(is_it).ok_or(WriteError::NotFound)?;
        for (field, value) in patch.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
            event[field] = value.clone();
        }
        Ok(event.clone())
    }
}
