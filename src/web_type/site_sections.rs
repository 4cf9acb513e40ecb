//! The sections of the site's configuration for the two backends.

use std::path::PathBuf;

use serde::Deserialize;

use super::value;

/// Section `gridengine`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GridConfig {
    /// The type if none is given.
    #[serde(deserialize_with = "value::name")]
    pub default_type: String,
    /// The resource `release=`, unless `--release` or the manifest gives one.
    #[serde(deserialize_with = "value::optional_name")]
    pub release: Option<String>,
    /// The resource `h_vmem=`.
    #[serde(deserialize_with = "value::grid_memory")]
    pub memory: String,
    /// Where `TOOL.web-memlimit` may give a tool another amount.
    #[serde(deserialize_with = "value::absolute_path")]
    pub memory_directory: PathBuf,
    /// The runner on exec hosts.
    #[serde(deserialize_with = "value::program")]
    pub runner: String,
}

/// Section `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The type if none is given.
    #[serde(deserialize_with = "value::optional_name")]
    pub default_type: Option<String>,
    /// A tool's namespace, with `{tool}`.
    #[serde(deserialize_with = "value::namespace")]
    pub namespace: String,
    /// Where types and their images are; `None`: only in the site's configuration.
    pub images: Option<ImageConfigMap>,
    /// The default limit of memory; the request is half.
    #[serde(deserialize_with = "value::quantity")]
    pub memory: String,
    /// The default limit of CPUs.
    #[serde(deserialize_with = "value::quantity")]
    pub cpu: String,
    /// The most replicas of a tool.
    pub max_replicas: u32,
}

/// The ConfigMap with the types and images.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfigMap {
    /// Its namespace.
    #[serde(deserialize_with = "value::object_name")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    /// The key with the YAML.
    #[serde(deserialize_with = "value::object_name")]
    pub key: String,
}

impl Default for GridConfig {
    fn default() -> Self {
        Self {
            default_type: "lighttpd".into(),
            release: None,
            memory: "4G".into(),
            memory_directory: "/data/project/.system/config".into(),
            runner: "webservice-runner".into(),
        }
    }
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            default_type: None,
            namespace: "tool-{tool}".into(),
            images: Some(ImageConfigMap::default()),
            memory: "512Mi".into(),
            cpu: "0.5".into(),
            max_replicas: 10,
        }
    }
}

impl Default for ImageConfigMap {
    fn default() -> Self {
        Self { namespace: "tf-public".into(), name: "image-config".into(), key: "images-v1.yaml".into() }
    }
}

impl KubernetesConfig {
    /// The namespace of a tool.
    pub fn namespace_of(&self, tool: &str) -> String {
        self.namespace.replace("{tool}", tool)
    }
}
