//! The objects of the scripted API server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Status and reason of a refusal, and its message.
pub type Refusal = (u16, &'static str, String);

#[derive(Default)]
pub struct Store {
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    version: u64,
}

fn key(plural: &str, namespace: &str, name: &str) -> (String, String, String) {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Store {
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects.get(&key(plural, namespace, name)).cloned()
    }

    pub fn names(&self, namespace: &str) -> Vec<String> {
        let here = self.objects.keys().filter(|(_, in_namespace, _)| in_namespace == namespace);
        here.map(|(plural, _, name)| format!("{plural}/{name}")).collect()
    }

    pub fn remove(&mut self, plural: &str, namespace: &str, name: &str) {
        self.objects.remove(&key(plural, namespace, name));
    }

    pub fn put(&mut self, plural: &str, namespace: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["namespace"] = json!(namespace);
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:{:02}Z", self.version % 60));
        }
        self.objects.insert(key(plural, namespace, &name), object);
    }

    pub fn list(&self, plural: &str, namespace: &str, selector: &str) -> Vec<Value> {
        let terms: Vec<_> = selector.split(',').filter_map(|term| term.split_once('=')).collect();
        let selects = |object: &Value| terms.iter().all(|(name, value)| object["metadata"]["labels"][*name] == *value);
        let of_kind = self.objects.iter().filter(|((kind, place, _), _)| kind == plural && place == namespace);
        of_kind.map(|(_, object)| object).filter(|object| selects(object)).cloned().collect()
    }

    pub fn create(&mut self, plural: &str, namespace: &str, mut object: Value) -> Result<Value, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.objects.contains_key(&key(plural, namespace, &name)) {
            return Err((409, "AlreadyExists", format!("{plural} {name:?} already exists")));
        }
        if plural == "services" && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = json!(format!("10.96.0.{}", self.version + 10));
        }
        self.put(plural, namespace, object);
        Ok(self.get(plural, namespace, &name).expect("just put"))
    }

    pub fn replace(&mut self, plural: &str, namespace: &str, name: &str, object: Value) -> Result<Value, Refusal> {
        let Some(before) = self.get(plural, namespace, name) else { return Err(not_found(plural, name)) };
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != before["metadata"]["resourceVersion"] {
            return Err((409, "Conflict", "the object has been modified".into()));
        }
        let immutable = match plural {
            "deployments" => "selector",
            "services" => "clusterIP",
            _ => "none",
        };
        if object["spec"][immutable] != before["spec"][immutable] {
            return Err((422, "Invalid", format!("spec.{immutable}: field is immutable")));
        }
        let mut object = object;
        object["metadata"]["uid"] = before["metadata"]["uid"].clone();
        object["status"] = before["status"].clone();
        self.put(plural, namespace, object);
        Ok(self.get(plural, namespace, name).expect("just put"))
    }

    pub fn delete(&mut self, plural: &str, namespace: &str, name: &str, options: &Value) -> Result<Value, Refusal> {
        let Some(before) = self.get(plural, namespace, name) else { return Err(not_found(plural, name)) };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != before["metadata"]["uid"] {
            return Err((409, "Conflict", "the uid in the precondition does not match".into()));
        }
        // Something holds it.
        if before["metadata"]["finalizers"].is_array() {
            let mut held = before;
            held["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(plural, namespace, held.clone());
            return Ok(held);
        }
        self.remove(plural, namespace, name);
        Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }
}

pub fn not_found(plural: &str, name: &str) -> Refusal {
    (404, "NotFound", format!("{plural} {name:?} not found"))
}
