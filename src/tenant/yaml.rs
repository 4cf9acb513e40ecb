//! Parses a tenant's YAML within a budget.

use serde::de::DeserializeOwned;
use serde_saphyr::{budget, options};

use super::shorten::shorten;

/// Parses one YAML document; `None` if it is empty. Without anchors, which no such file needs, a document cannot expand.
///
/// # Errors
/// The first line of the parser's message: not YAML, not a `T`, anchors, several documents, deep nesting ...
pub fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<Option<T>, String> {
    let options = options! {
        budget: budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_documents: 1,
            max_depth: 16,
            max_events: 10_000,
            max_nodes: 10_000,
            max_merge_keys: 0,
        },
        with_snippet: false,
    };
    let read = serde_saphyr::from_str_with_options(text, options);
    read.map_err(|error: serde_saphyr::Error| shorten(error.to_string().trim()))
}
