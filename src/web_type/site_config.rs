//! The site's configuration, /etc/toolforge/webservice.yaml. The operator writes it; a missing file means the defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::{budget, options};

use super::backend_name::BackendName;
use super::definition::WebType;
use super::home_file::{self, HomeFileError};
use super::site_sections::{GridConfig, KubernetesConfig};
use super::type_set::TypeSet;
use super::value;

/// The largest file, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// What a site decides about web services.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteConfig {
    /// Tools are `https://TOOL.DOMAIN/`.
    #[serde(deserialize_with = "value::optional_domain")]
    pub public_domain: Option<String>,
    /// A tool's URL, with `{tool}`; counts before `public_domain`.
    #[serde(deserialize_with = "value::optional_tool_url")]
    pub public_url: Option<String>,
    /// Tools' own images are below `REPOSITORY/tool-TOOL/`.
    #[serde(deserialize_with = "value::optional_image")]
    pub buildservice_repository: Option<String>,
    /// The backend if nothing else names one.
    pub default_backend: BackendName,
    /// Whether tools see `/` instead of `/TOOL`.
    pub canonical: bool,
    /// The file that lists the proxies.
    #[serde(deserialize_with = "value::absolute_path")]
    pub active_proxy_file: PathBuf,
    /// Where a proxy lists its routes; `HOST` stands for the proxy.
    #[serde(deserialize_with = "value::list_url")]
    pub list_url: String,
    /// Section `gridengine`.
    #[serde(rename = "gridengine", deserialize_with = "value::section")]
    pub grid: GridConfig,
    /// Section `kubernetes`.
    #[serde(deserialize_with = "value::section")]
    pub kubernetes: KubernetesConfig,
    types: TypeSet,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SiteConfigError {
    /// A file that was asked for is missing.
    #[error("there is no site configuration {0:?}")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("site configuration: {0}")]
    Unreadable(#[from] HomeFileError),
    /// The file is not UTF-8.
    #[error("site configuration {0:?} is not UTF-8")]
    NotUtf8(PathBuf),
    /// The file is invalid.
    #[error("invalid site configuration {path:?}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// With line, key, value and what was expected.
        reason: String,
    },
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            public_domain: None,
            public_url: None,
            buildservice_repository: None,
            default_backend: BackendName::Kubernetes,
            canonical: false,
            active_proxy_file: "/etc/active-proxy".into(),
            list_url: "http://HOST:8081/list".into(),
            grid: GridConfig::default(),
            kubernetes: KubernetesConfig::default(),
            types: TypeSet::default(),
        }
    }
}

impl SiteConfig {
    /// Where the file is by default.
    pub const PATH: &str = "/etc/toolforge/webservice.yaml";

    /// Reads the file. If the one at [`Self::PATH`] is missing, these are the defaults.
    pub fn read(path: &Path) -> Result<Self, SiteConfigError> {
        let Some(content) = home_file::read(path, MAX_BYTES)? else {
            let is_default = path == Path::new(Self::PATH);
            return if is_default { Ok(Self::default()) } else { Err(SiteConfigError::Missing(path.to_owned())) };
        };
        let text = std::str::from_utf8(&content).map_err(|_| SiteConfigError::NotUtf8(path.to_owned()))?;
        Self::parse(text).map_err(|reason| SiteConfigError::Invalid { path: path.to_owned(), reason })
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let options = options! {
            budget: budget! { max_documents: 1, max_depth: 32, max_events: 100_000, max_nodes: 100_000 },
            with_snippet: false,
        };
        let read: Result<Option<Self>, serde_saphyr::Error> = serde_saphyr::from_str_with_options(text, options);
        let config = read.map_err(|error| error.to_string().trim().to_owned())?.unwrap_or_default();
        config.check()
    }

    /// Checks that the default types exist.
    fn check(self) -> Result<Self, String> {
        let defaults = [
            ("gridengine", BackendName::GridEngine, Some(&self.grid.default_type)),
            // The others are in a ConfigMap.
            (
                "kubernetes",
                BackendName::Kubernetes,
                self.kubernetes.default_type.as_ref().filter(|_| self.kubernetes.images.is_none()),
            ),
        ];
        for (section, backend, name) in defaults {
            let is_there = |name: &String| self.web_type(name).is_some_and(|found| found.runs_on(backend));
            if let Some(name) = name.filter(|name| !is_there(name)) {
                let names: Vec<_> = self.types_on(backend).map(|web_type| &*web_type.name).collect();
                return Err(format!(
                    "{section}.default_type: unknown type {name:?}, expected one of {}",
                    names.join(", ")
                ));
            }
        }
        Ok(self)
    }

    /// The type of this name or alias.
    pub fn web_type(&self, name: &str) -> Option<&WebType> {
        self.types.get(name)
    }

    /// All types, the built-in ones first.
    pub fn types(&self) -> impl Iterator<Item = &WebType> {
        self.types.iter()
    }

    /// The types of one backend.
    pub fn types_on(&self, backend: BackendName) -> impl Iterator<Item = &WebType> {
        self.types.iter().filter(move |web_type| web_type.runs_on(backend))
    }

    /// The public URL of a tool, if the configuration has `public_url` or `public_domain`.
    pub fn url_of(&self, tool: &str) -> Option<String> {
        let by_domain = || self.public_domain.as_ref().map(|domain| format!("https://{tool}.{domain}/"));
        self.public_url.as_ref().map(|url| url.replace("{tool}", tool)).or_else(by_domain)
    }
}

#[cfg(test)]
mod tests {
    use super::super::site_sections::ImageConfigMap;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_file_gives_the_defaults() {
        for text in
            ["", "# nothing\n", "{}", "gridengine:\n", "types:\n", "gridengine: {}\nkubernetes: {}\ntypes: {}\n"]
        {
            assert_eq!(SiteConfig::parse(text), Ok(SiteConfig::default()), "{text:?}");
        }
        let config = SiteConfig::default();
        assert_eq!((config.default_backend, &*config.grid.default_type), (BackendName::Kubernetes, "lighttpd"));
        assert_eq!(config.kubernetes.namespace_of("hello"), "tool-hello");
        assert_eq!(config.kubernetes.images, Some(ImageConfigMap::default()));
    }

    #[test]
    fn values_are_read() {
        let config = SiteConfig::parse(
            "default_backend: gridengine\ngridengine: {release: bookworm, memory: 2G}\nkubernetes: {images: null, cpu: 1}\n",
        )
        .unwrap();
        assert_eq!(config.default_backend, BackendName::GridEngine);
        assert_eq!((config.grid.release.as_deref(), &*config.grid.memory), (Some("bookworm"), "2G"));
        assert_eq!(
            (config.kubernetes.images, &*config.kubernetes.cpu, &*config.kubernetes.memory),
            (None, "1", "512Mi")
        );
    }

    #[test]
    fn packaged_file_is_valid_with_and_without_its_optional_lines() {
        let shipped = include_str!("../../packaging/etc/webservice.yaml");
        assert_eq!(SiteConfig::parse(shipped), Ok(SiteConfig::default()));
        let uncomment = |line: &str| line.replacen('#', "", 1);
        let uncommented: Vec<_> = shipped.lines().filter(|line| !line.contains("# ")).map(uncomment).collect();
        let config = SiteConfig::parse(&uncommented.join("\n")).unwrap();
        assert_eq!(config.web_type("rack").map(|found| &*found.name), Some("ruby"));
        // The lines show defaults, but for those without one.
        let defaults = SiteConfig::default();
        assert_eq!(config.grid, GridConfig { release: Some("bookworm".into()), ..GridConfig::default() });
        let default_type = Some("php8.2".into());
        assert_eq!(config.kubernetes, KubernetesConfig { default_type, ..KubernetesConfig::default() });
        let SiteConfig { default_backend, canonical, active_proxy_file, list_url, .. } = config;
        let shown = (default_backend, canonical, active_proxy_file, list_url);
        let SiteConfig { default_backend, canonical, active_proxy_file, list_url, .. } = defaults;
        assert_eq!(shown, (default_backend, canonical, active_proxy_file, list_url));
        assert!(
            config.public_domain.is_some() && config.public_url.is_some() && config.buildservice_repository.is_some()
        );
    }

    #[test]
    fn url_is_the_given_one_or_of_the_domain() {
        for (text, want) in [
            ("", None),
            ("public_domain: example.org", Some("https://hello.example.org/")),
            ("public_url: 'http://x/{tool}/'", Some("http://x/hello/")),
            ("{public_domain: example.org, public_url: 'http://x/{tool}/'}", Some("http://x/hello/")),
        ] {
            assert_eq!(SiteConfig::parse(text).unwrap().url_of("hello").as_deref(), want, "{text}");
        }
    }

    #[test]
    fn errors_name_line_value_and_expectation() {
        for (text, wanted) in [
            ("colour: red", &["line 1", "colour", "public_domain", "types"][..]),
            ("gridengine:\n  memroy: 4G", &["line 2", "memroy", "default_type", "memory"]),
            ("gridengine:\n  memory: 4G,x=y", &["line 2", "\"4G,x=y\"", "qsub -l h_vmem=4G"]),
            ("gridengine:\n  runner: -x y", &["line 2", "\"-x y\"", "a program or its path"]),
            ("default_backend: grid", &["line 1", "\"grid\"", "\"gridengine\" or \"kubernetes\""]),
            ("canonical: maybe", &["line 1"]),
            ("active_proxy_file: proxies", &["line 1", "\"proxies\"", "an absolute path"]),
            ("list_url: 'file:///x'", &["line 1", "\"file:///x\"", "HOST"]),
            ("public_url: 'https://x/'", &["line 1", "\"https://x/\"", "{tool}"]),
            ("kubernetes:\n  namespace: tools", &["line 2", "\"tools\"", "{tool}"]),
            ("kubernetes:\n  memory: 512K", &["line 2", "512K", "quantity"]),
            ("kubernetes:\n  max_replicas: many", &["line 2"]),
            ("gridengine:\n  default_type: apache", &["gridengine.default_type", "\"apache\"", "lighttpd"]),
            ("types:\n  a:\n    command: [a, '{prot}']", &["line 3", "{prot}", "{port}"]),
            ("types:\n  a:\n    comand: [a]", &["line 3", "comand", "command"]),
            ("a: 1\n---\nb: 1\n", &[]),
            ("a: [", &["line 1"]),
            ("canonical: true\ncanonical: false\n", &["line 2", "canonical"]),
        ] {
            let error = SiteConfig::parse(text).unwrap_err();
            for word in wanted {
                assert!(error.contains(word), "{text:?}: no {word:?} in {error:?}");
            }
        }
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("webservice.yaml");
        assert!(matches!(SiteConfig::read(&path), Err(SiteConfigError::Missing(_))));
        std::fs::write(&path, "canonical: true").unwrap();
        assert!(SiteConfig::read(&path).unwrap().canonical);
        std::fs::write(&path, "canonical: [").unwrap();
        let error = SiteConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("line 1"), "{error}");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(SiteConfig::read(&path), Err(SiteConfigError::NotUtf8(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}|(types|gridengine|[a-z]{1,6}|: |\\[|\\]|\\{|\\}|&a |\\*a |- |\n|  ){0,30}") {
            let _ = SiteConfig::parse(&text);
        }
    }
}
