//! The format of service.manifest: what a tool's web service is, for webservicemonitor and later commands.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use super::yaml::parse_yaml;
use super::yaml_text::{flow, scalar};

/// The largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;
/// Set in the environment of a `webservice restart` that webservicemonitor decided on: only what the manifest still wants is restarted.
pub const MONITOR_VARIABLE: &str = "WEBSERVICE_BY_MONITOR";
/// The version that is written.
const VERSION: u32 = 4;
const COMMENT: &str = "\
# The web service of this tool, written by `webservice`.
# The platform starts the web service again by this file; do not edit it.
# `webservice stop` stops it for good; service.template is yours to edit.
";
/// Keys that are replaced when the file is written.
const KEYS: [&str; 10] = [
    "backend",
    "buildservice-image",
    "cpu",
    "distribution",
    "memory",
    "release",
    "replicas",
    "version",
    "web",
    "web::extra_args",
];

/// The content of a service.manifest of version 2, 3 or 4.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The type; none if the web service is stopped.
    pub web: Option<String>,
    /// `gridengine` or `kubernetes`; old files have none.
    pub backend: Option<String>,
    /// The release, in old files `distribution`.
    pub release: Option<String>,
    /// The limit of processors.
    pub cpu: Option<String>,
    /// The limit of memory.
    pub memory: Option<String>,
    /// The number of pods.
    pub replicas: Option<u32>,
    /// Arguments for the type.
    pub extra: Vec<String>,
    /// An image of the tool's own.
    pub buildservice_image: Option<String>,
    /// Keys of other programs.
    pub other: BTreeMap<String, Value>,
}

/// The keys of this program. Typed, so that `release: 3.10` stays what it is.
#[derive(Deserialize)]
struct Written {
    web: Option<String>,
    backend: Option<String>,
    distribution: Option<String>,
    release: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
    #[serde(default, deserialize_with = "super::replicas")]
    replicas: Option<u32>,
    #[serde(rename = "web::extra_args")]
    extra: Option<Vec<String>>,
    #[serde(rename = "buildservice-image")]
    buildservice_image: Option<String>,
}

impl Manifest {
    /// Parses a manifest; an empty one wants no web service.
    ///
    /// # Errors
    /// Not YAML, anchors, several documents, deep nesting, or values of other types.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (Some(written), Some(mut other)) = (parse_yaml::<Written>(text)?, parse_yaml::<BTreeMap<_, _>>(text)?)
        else {
            return Ok(Self::default());
        };
        other.retain(|key: &String, _| !KEYS.contains(&key.as_str()));
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            web: given(written.web),
            backend: given(written.backend),
            release: given(written.release).or(given(written.distribution)),
            cpu: given(written.cpu),
            memory: given(written.memory),
            replicas: written.replicas,
            extra: written.extra.unwrap_or_default(),
            buildservice_image: given(written.buildservice_image),
            other,
        })
    }

    /// The same without a web service; keys of other programs stay.
    pub fn without_service(self) -> Self {
        Self { other: self.other, ..Self::default() }
    }

    /// The file's text: three comment lines, then the keys in order.
    pub fn to_text(&self) -> String {
        let mut lines: BTreeMap<&str, String> =
            self.other.iter().map(|(key, value)| (key.as_str(), format!(" {}", flow(value)))).collect();
        lines.insert("version", format!(" {VERSION}"));
        let words = [
            ("backend", &self.backend),
            ("buildservice-image", &self.buildservice_image),
            ("cpu", &self.cpu),
            ("memory", &self.memory),
            ("release", &self.release),
            ("web", &self.web),
        ];
        for (key, value) in words {
            if let Some(value) = value {
                lines.insert(key, format!(" {}", scalar(value)));
            }
        }
        if let Some(replicas) = self.replicas {
            lines.insert("replicas", format!(" {replicas}"));
        }
        if !self.extra.is_empty() {
            let items: String = self.extra.iter().map(|word| format!("\n- {}", scalar(word))).collect();
            lines.insert("web::extra_args", items);
        }
        let mut text = COMMENT.to_owned();
        for (key, value) in lines {
            let key = if KEYS.contains(&key) { key.to_owned() } else { scalar(key) };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}:{value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    #[test]
    fn old_versions_are_read() {
        let grid = |text: &str| {
            let read = Manifest::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            (read.web.unwrap_or_default(), read.release.unwrap_or_default(), read.backend)
        };
        for (text, want) in [
            ("", ("", "", None)),
            ("# only\n", ("", "", None)),
            ("version: 2\nweb: lighttpd\ndistribution: debian\nrelease: jessie\n", ("lighttpd", "jessie", None)),
            ("version: 2\nweb: lighttpd\ndistribution: trusty\n", ("lighttpd", "trusty", None)),
            ("{version: 3, web: nodejs, backend: gridengine}", ("nodejs", "", Some("gridengine"))),
            ("version: 4\nweb: python3.11\nbackend: kubernetes\n", ("python3.11", "", Some("kubernetes"))),
            ("web: 3\nrelease: 3.10\n", ("3", "3.10", None)),
            ("web: ~\nrelease: ''\n", ("", "", None)),
        ] {
            let (web, release, backend) = want;
            assert_eq!(grid(text), (web.into(), release.into(), backend.map(str::to_owned)), "{text}");
        }
        let read =
            Manifest::parse("web: a\ncpu: 0.5\nmemory: 2Gi\nreplicas: 2\nweb::extra_args: [./x, 1, '']\n").unwrap();
        assert_eq!((read.cpu.as_deref(), read.memory.as_deref(), read.replicas), (Some("0.5"), Some("2Gi"), Some(2)));
        assert_eq!(read.extra, ["./x", "1", ""]);
    }

    #[test]
    fn written_text_is_sorted_below_three_comment_lines() {
        let manifest = Manifest {
            web: Some("generic".into()),
            backend: Some("gridengine".into()),
            release: Some("bookworm".into()),
            extra: vec!["./server".into(), "a 'b' \"c\"".into(), "yes".into(), String::new()],
            other: [("my key".to_owned(), serde_json::json!({"a": [1, "b", null]}))].into(),
            ..Manifest::default()
        };
        let text = manifest.to_text();
        assert!(text.lines().take(3).all(|line| line.starts_with("# ")), "{text}");
        let lines: Vec<_> = text.lines().skip(3).collect();
        let want = [
            "backend: gridengine",
            "\"my key\": {\"a\": [1, \"b\", null]}",
            "release: bookworm",
            "version: 4",
            "web: generic",
            "web::extra_args:",
            "- \"./server\"",
            "- \"a 'b' \\\"c\\\"\"",
            "- \"yes\"",
            "- \"\"",
        ];
        assert_eq!(lines, want);
        assert_eq!(Manifest::parse(&text), Ok(manifest));
    }

    #[test]
    fn tricks_of_yaml_are_errors() {
        for text in [
            "- web: a",
            "web: [a]",
            "web: {a: b}",
            "web: a\nweb: b",
            "web: a\n---\nweb: b",
            "web: &x a",
            "a: &x [1]\nweb: *x",
            "<<: {web: a}",
            "web::extra_args: a",
            "web::extra_args: [[a]]",
            "replicas: many",
            "replicas: -1",
            "web: \"\\x\"",
            "web: {",
            &"[".repeat(100),
        ] {
            let read = Manifest::parse(text);
            assert!(read.is_err() || text.starts_with("<<"), "{text}: {read:?}");
            assert!(read.is_err() || read.is_ok_and(|read| read.web.is_none()), "{text}");
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9]{1,8}", "\\PC{1,10}", any::<String>().prop_filter("not empty", |text| !text.is_empty())]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1000..1000_i32).prop_map(|n| Value::from(f64::from(n) + 0.5)),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn manifests_survive_a_round_trip(
            web in text(), backend in option::of(text()), release in option::of(text()), cpu in option::of(text()),
            memory in option::of(text()), replicas in option::of(any::<u32>()), extra in vec(any::<String>(), 0..5),
            other in btree_map(text(), value(), 0..4)
        ) {
            let mut other: BTreeMap<String, Value> = other;
            other.retain(|key, _| !KEYS.contains(&key.as_str()) && key != "<<");
            let manifest = Manifest { web: Some(web), backend, release, cpu, memory, replicas, extra, buildservice_image: None, other };
            let text = manifest.to_text();
            prop_assert_eq!(Manifest::parse(&text), Ok(manifest), "{}", text);
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}|(web|replicas|[a-z]{1,6}|: |\\[|\\]|\\{|\\}|&a |\\*a |- |\n|  |!!x |\\||>){0,30}") {
            if let Ok(manifest) = Manifest::parse(&text) {
                prop_assert_eq!(Manifest::parse(&manifest.to_text()), Ok(manifest));
            }
        }
    }
}
