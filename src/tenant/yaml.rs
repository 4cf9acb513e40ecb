//! Parses a tenant's YAML within a budget.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
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

/// Reads a number of pods; the error names what was written instead.
pub fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let written = Option::<String>::deserialize(deserializer)?;
    let read = |text: String| {
        text.parse()
            .map_err(|_| Error::custom(format!("invalid replicas {:?}, expected a number, e.g. 2", shorten(&text))))
    };
    written.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Read {
        #[serde(default, deserialize_with = "replicas")]
        replicas: Option<u32>,
    }

    #[test]
    fn invalid_number_of_pods_is_named() {
        for (text, want) in [("replicas: 2", Some(2)), ("replicas:", None), ("{}", None)] {
            assert_eq!(parse_yaml(text), Ok(Some(Read { replicas: want })), "{text}");
        }
        for (text, name) in [("replicas: -1", "\"-1\""), ("replicas: many", "\"many\""), ("replicas: 1e3", "\"1e3\"")] {
            let error = parse_yaml::<Read>(text).unwrap_err();
            assert!(error.contains(&format!("invalid replicas {name}, expected a number")), "{error}");
        }
    }
}
