//! The format of `export` and `import`: one tool or domain per line, in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::PatternBackends;
use crate::route::Kind;

/// A tool with its routes, redirects and origins, or a domain with its backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportLine {
    /// `tool` or `domain`.
    pub kind: Kind,
    /// The tool or domain.
    pub name: String,
    /// Whether the key is a set of backends: always for a domain, seldom for a tool.
    #[serde(default, skip_serializing_if = "is_false")]
    pub set: bool,
    /// In a set the pattern is `.*`.
    #[serde(default)]
    pub routes: Vec<PatternBackends>,
    /// Canonical hosts by pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redirect: BTreeMap<String, String>,
    /// Who registered the routes, by pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origin: BTreeMap<String, Value>,
}

fn is_false(value: &bool) -> bool {
    !value
}
