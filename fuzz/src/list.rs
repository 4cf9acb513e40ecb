//! The list of another proxy, and its age: any bytes give tools or an error; only active tools count.

use urlproxy::proxy_list::{ListUrl, parse_listing};

pub fn check(bytes: &[u8]) {
    if let Ok(tools) = parse_listing(bytes) {
        let json: serde_json::Value = serde_json::from_slice(bytes).expect("what is read is JSON");
        let listed = json.as_object().expect("an object");
        // Derived code takes an array of the values, too.
        let is_active = |entry: &serde_json::Value| entry.get("status").or(entry.get(0)).is_some_and(|s| s == "active");
        assert!(tools.iter().all(|tool| is_active(&listed[tool])));
        assert_eq!(tools.len(), listed.values().filter(|entry| is_active(entry)).count());
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(error) = ListUrl::parse(text)
    {
        assert!(error.contains("expected e.g."));
    }
}
