//! The types of web service with their images, from the ConfigMap that the site's operators maintain.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Deserializer};

use crate::tenant::parse_yaml;

/// The largest text, in bytes: what a ConfigMap can hold.
const MAX_BYTES: usize = 1 << 20;

/// Why the ConfigMap is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The key is missing.
    #[error("ConfigMap {config_map} has no key {key:?}; tell the operators")]
    NoKey {
        /// `NAMESPACE/NAME`.
        config_map: String,
        /// The key.
        key: String,
    },
    /// The text exceeds [`MAX_BYTES`].
    #[error("{key:?} in ConfigMap {config_map} has more than {MAX_BYTES} bytes; tell the operators")]
    TooLarge {
        /// `NAMESPACE/NAME`.
        config_map: String,
        /// The key.
        key: String,
    },
    /// The text is not the expected YAML.
    #[error("unsupported or invalid YAML in {key:?} of ConfigMap {config_map}: {reason}; tell the operators")]
    Malformed {
        /// `NAMESPACE/NAME`.
        config_map: String,
        /// The key.
        key: String,
        /// The parser's error, with its position.
        reason: String,
    },
}

/// One type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image of the container.
    pub image: String,
    /// The type that webservice-runner runs in it; `None` if the ConfigMap does not say.
    pub runner_type: Option<String>,
    /// Resources other than the site's.
    pub resources: ImageResources,
    /// Whether the operators will remove the type.
    pub is_deprecated: bool,
}

/// Limits and requests of memory and processor time; the site's where not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageResources {
    /// `[limit, request]`.
    pub memory: [Option<String>; 2],
    /// `[limit, request]`.
    pub cpu: [Option<String>; 2],
}

/// All types by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    by_name: BTreeMap<String, Image>,
    aliases: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default, deserialize_with = "or_default")]
    aliases: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    state: String,
    #[serde(default, deserialize_with = "or_default")]
    variants: BTreeMap<String, Option<Variant>>,
}

#[derive(Deserialize)]
struct Variant {
    image: String,
    #[serde(default, deserialize_with = "or_default")]
    extra: Extra,
}

#[derive(Default, Deserialize)]
struct Extra {
    wstype: Option<String>,
    resources: Option<Resources>,
}

/// A key without a value is as good as none: the file is for all tools.
fn or_default<'a, D: Deserializer<'a>, T: Default + Deserialize<'a>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The old command knew names of resources only.
#[derive(Deserialize)]
#[serde(untagged)]
enum Resources {
    Named(String),
    Given {
        #[serde(default)]
        limits: Given,
        #[serde(default)]
        requests: Given,
    },
}

#[derive(Default, Deserialize)]
struct Given {
    memory: Option<Scalar>,
    cpu: Option<Scalar>,
}

/// `cpu: 1` is a number in YAML.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(u64),
    Fraction(f64),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
        }
    }
}

impl Images {
    /// Reads the types under this key.
    ///
    /// # Errors
    /// As [`ImagesError`] says.
    pub fn read(config_map: &ConfigMap, key: &str) -> Result<Self, ImagesError> {
        let metadata = &config_map.metadata;
        let [namespace, name] = [&metadata.namespace, &metadata.name].map(|text| text.as_deref().unwrap_or_default());
        let (data, config_map, key) = (&config_map.data, format!("{namespace}/{name}"), key.to_owned());
        let Some(text) = data.as_ref().and_then(|data| data.get(&key)) else {
            return Err(ImagesError::NoKey { config_map, key });
        };
        if text.len() > MAX_BYTES {
            return Err(ImagesError::TooLarge { config_map, key });
        }
        Self::parse(text).map_err(|reason| ImagesError::Malformed { config_map, key, reason })
    }

    /// Parses the types.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries: BTreeMap<String, Option<Entry>> = parse_yaml(text)?.unwrap_or_default();
        let mut images = Self::default();
        for (name, entry) in entries {
            let mut entry = entry.unwrap_or_default();
            let Some(variant) = entry.variants.remove("webservice").flatten() else { continue };
            for alias in entry.aliases {
                images.aliases.insert(alias, name.clone());
            }
            let image = Image {
                image: variant.image,
                runner_type: variant.extra.wstype,
                resources: variant.extra.resources.map(ImageResources::from).unwrap_or_default(),
                is_deprecated: entry.state == "deprecated",
            };
            images.by_name.insert(name, image);
        }
        Ok(images)
    }

    /// The type of that name or alias.
    pub fn find(&self, name: &str) -> Option<&Image> {
        self.by_name.get(name).or_else(|| self.by_name.get(self.aliases.get(name)?))
    }

    /// The names of the types that are not deprecated, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.iter().filter(|(_, image)| !image.is_deprecated).map(|(name, _)| &**name)
    }
}

impl From<Resources> for ImageResources {
    fn from(resources: Resources) -> Self {
        let text = |scalar: Option<Scalar>| scalar.map(Scalar::into_text);
        match resources {
            // A Java machine needs more, but not all of the time.
            Resources::Named(name) if name == "jdk" => {
                Self { memory: [Some("1Gi".into()), Some("256Mi".into())], cpu: [None, None] }
            }
            Resources::Named(_) => Self::default(),
            Resources::Given { limits, requests } => Self {
                memory: [text(limits.memory), text(requests.memory)],
                cpu: [text(limits.cpu), text(requests.cpu)],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "
jdk17:
  aliases: [tf-jdk17]
  state: stable
  variants:
    jobs-framework: {image: 'registry.example.org/jdk17-base:latest'}
    webservice:
      image: registry.example.org/jdk17-web:latest
      extra: {wstype: generic, resources: jdk}
php8.2:
  state: stable
  variants: {webservice: {image: 'registry.example.org/php82', extra: {wstype: lighttpd}}}
php7.4:
  state: deprecated
  variants: {webservice: {image: 'registry.example.org/php74', extra: {wstype: lighttpd, resources: default}}}
big:
  state: stable
  variants:
    webservice:
      image: registry.example.org/big
      extra: {wstype: generic, resources: {limits: {memory: 2Gi, cpu: 1}, requests: {cpu: 0.5}}}
jobs: {state: stable, variants: {jobs-framework: {image: x}}}
new-key: {state: stable, something: [new], variants: {webservice: {image: y, more: z}}}
no-values: {state: , aliases: , variants: {webservice: {image: n, extra: }, jobs-framework: }}
no-variants: {variants: }
nothing:
";

    fn config_map(text: &str) -> ConfigMap {
        let data = [("images-v1.yaml".to_owned(), text.to_owned())].into();
        let metadata = kube::api::ObjectMeta {
            namespace: Some("tf-public".into()),
            name: Some("image-config".into()),
            ..kube::api::ObjectMeta::default()
        };
        ConfigMap { data: Some(data), metadata, ..ConfigMap::default() }
    }

    fn read(text: &str) -> Result<Images, String> {
        Images::read(&config_map(text), "images-v1.yaml").map_err(|error| error.to_string())
    }

    #[test]
    fn types_have_images_and_resources() {
        let images = read(SAMPLE).unwrap();
        let php = images.find("php8.2").unwrap();
        assert_eq!((&*php.image, php.runner_type.as_deref()), ("registry.example.org/php82", Some("lighttpd")));
        assert_eq!(php.resources, ImageResources::default());
        assert!(!php.is_deprecated && images.find("php7.4").unwrap().is_deprecated);
        let jdk = images.find("tf-jdk17").unwrap();
        assert_eq!(jdk.resources.memory, [Some("1Gi".into()), Some("256Mi".into())]);
        let big = images.find("big").unwrap();
        assert_eq!(big.resources.memory, [Some("2Gi".into()), None]);
        assert_eq!(big.resources.cpu, [Some("1".into()), Some("0.5".into())]);
        assert!(images.find("jobs").is_none(), "it has no image for web services");
        assert_eq!(images.find("new-key").unwrap().runner_type, None);
        assert_eq!(images.names().collect::<Vec<_>>(), ["big", "jdk17", "new-key", "no-values", "php8.2"]);
    }

    #[test]
    fn unusable_texts_are_refused_in_one_line() {
        let bomb = (0..30).map(|n| format!("a{n}: &a{n} [*a{n}, *a{n}]\n")).collect::<String>();
        let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
        let many = "a: {variants: {}}\n".repeat(20_000);
        for text in ["[", "- a", "a: 1", "a: {variants: {webservice: {}}}", &*bomb, &deep, &many, "a: {}\n---\nb: {}"] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("unsupported or invalid YAML in \"images-v1.yaml\""), "{error}");
            assert!(error.contains("tf-public/image-config") && !error.contains('\n'), "{error}");
        }
        assert!(read(&" ".repeat(MAX_BYTES + 1)).unwrap_err().contains("more than 1048576 bytes"));
        let error = Images::read(&config_map(""), "other").unwrap_err().to_string();
        assert_eq!(error, "ConfigMap tf-public/image-config has no key \"other\"; tell the operators");
    }
}
