//! The two backends that run web services.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Grid Engine or Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendName {
    /// `gridengine`
    GridEngine,
    /// `kubernetes`
    Kubernetes,
}

/// A text that names no backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend {0:?}, expected \"gridengine\" or \"kubernetes\"")]
pub struct BackendNameError(String);

impl BackendName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::GridEngine, Self::Kubernetes];

    /// As in command lines and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GridEngine => "gridengine",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl FromStr for BackendName {
    type Err = BackendNameError;

    fn from_str(text: &str) -> Result<Self, BackendNameError> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| BackendNameError(text.to_owned()))
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for BackendName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for BackendName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for name in BackendName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for text in ["", "grid", "Kubernetes", "kubernetes "] {
            let error = text.parse::<BackendName>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("gridengine"), "{error}");
        }
    }
}
