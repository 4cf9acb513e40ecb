//! service.template: the maintainer's own defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::tenant::{FileProblem, TenantFile, parse_yaml, replicas};

/// The file's name.
const FILE: &str = "service.template";
/// The directories below the home where it is looked for.
const DIRECTORIES: [&str; 4] = ["", "www/python/src", "www/js", "public_html"];
/// The largest template, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// All keys.
const KEYS: [&str; 8] = ["backend", "release", "cpu", "mem", "replicas", "type", "extra_args", "buildservice-image"];

/// The content of a service.template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Template {
    /// `gridengine` or `kubernetes`.
    pub backend: Option<String>,
    /// The release.
    pub release: Option<String>,
    /// The limit of processors.
    pub cpu: Option<String>,
    /// The limit of memory.
    pub mem: Option<String>,
    /// The number of pods.
    #[serde(default, deserialize_with = "replicas")]
    pub replicas: Option<u32>,
    /// The type.
    #[serde(rename = "type")]
    pub web: Option<String>,
    /// Arguments for the type.
    #[serde(rename = "extra_args")]
    pub extra: Option<Vec<String>>,
    /// An image of the tool's own.
    #[serde(rename = "buildservice-image")]
    pub buildservice_image: Option<String>,
    /// Keys that mean nothing.
    #[serde(skip)]
    pub unknown: Vec<String>,
}

/// Why there is no valid template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// More than one.
    #[error("there is more than one service.template: {}; keep one of them", in_words(.0))]
    Several(Vec<PathBuf>),
    /// `--template` names a file that does not exist.
    #[error("there is no template {0:?}")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("template {path:?}: {problem}; correct or remove it")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The content is invalid.
    #[error("template {path:?}: {reason}; expected the keys {}", KEYS.join(", "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
}

fn in_words(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("{path:?}")).collect::<Vec<_>>().join(", ")
}

impl Template {
    /// Reads `given`, or else the one template in the home; an empty one if there is none. Returns also the file's path.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn find(home: &Path, given: Option<&Path>) -> Result<(Self, Option<PathBuf>), TemplateError> {
        if let Some(path) = given {
            let found = Self::read(path)?.ok_or_else(|| TemplateError::Missing(path.to_owned()))?;
            return Ok((found, Some(path.to_owned())));
        }
        let paths = DIRECTORIES.iter().map(|directory| home.join(directory).join(FILE));
        let there: Vec<PathBuf> = paths.filter(|path| path.symlink_metadata().is_ok()).collect();
        match &*there {
            [] => Ok((Self::default(), None)),
            [path] => Ok((Self::read(path)?.unwrap_or_default(), Some(path.clone()))),
            _ => Err(TemplateError::Several(there)),
        }
    }

    /// `None` if there is no file.
    fn read(path: &Path) -> Result<Option<Self>, TemplateError> {
        let problem = |problem| TemplateError::File { path: path.to_owned(), problem };
        let Some(file) = TenantFile::open_as_tenant(path).map_err(problem)? else { return Ok(None) };
        let text = file.read_text(MAX_BYTES).map_err(problem)?;
        let parsed = Self::parse(&text).map_err(|reason| TemplateError::Invalid { path: path.to_owned(), reason });
        parsed.map(Some)
    }

    /// Parses a template; an empty one sets nothing.
    ///
    /// # Errors
    /// Not YAML, anchors, several documents, deep nesting, or values of other types.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(read) = parse_yaml::<Self>(text)? else { return Ok(Self::default()) };
        let all: Option<std::collections::BTreeMap<String, Value>> = parse_yaml(text)?;
        let unknown = all.unwrap_or_default().into_keys().filter(|key| !KEYS.contains(&key.as_str())).collect();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            backend: given(read.backend),
            release: given(read.release),
            cpu: given(read.cpu),
            mem: given(read.mem),
            web: given(read.web),
            buildservice_image: given(read.buildservice_image),
            unknown,
            ..read
        })
    }

    /// A remark about keys that mean nothing.
    pub fn remark(&self) -> Option<String> {
        let first = self.unknown.first()?;
        Some(format!("unknown key {first:?} is ignored, expected one of {}", KEYS.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn keys_are_read() {
        let all = "backend: kubernetes\nrelease: 3.10\ncpu: 0.50\nmem: 1Gi\nreplicas: 2\ntype: python3.11\nextra_args: [a, 1]\n\
                   buildservice-image: x\nmemory: 1\n";
        let read = Template::parse(all).unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            (read.backend.clone(), read.release.clone(), read.cpu.clone()),
            (text("kubernetes"), text("3.10"), text("0.50"))
        );
        assert_eq!((read.mem.clone(), read.replicas, read.web.clone()), (text("1Gi"), Some(2), text("python3.11")));
        assert_eq!(
            (read.extra.clone(), read.buildservice_image.clone()),
            (Some(vec!["a".into(), "1".into()]), text("x"))
        );
        assert!(read.remark().unwrap().contains("\"memory\""));
        for empty in ["", "# none\n", "{}", "type: ''\nbackend: ~\n"] {
            assert_eq!(Template::parse(empty), Ok(Template::default()), "{empty:?}");
        }
    }

    #[test]
    fn tricks_of_yaml_are_errors() {
        for text in [
            "a",
            "- a",
            "type: [a]",
            "extra_args: a",
            "replicas: 1.5",
            "replicas: -1",
            "type: a\ntype: b",
            "a: &x 1",
            "a: 1\n---\nb: 1",
            "type: {a: b}",
            "{",
            &"[".repeat(99),
            "extra_args: [[a]]",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_of_four_places_may_have_a_template() {
        let home = tempfile::tempdir().unwrap();
        let find = || Template::find(home.path(), None);
        assert_eq!(find().unwrap(), (Template::default(), None));
        for directory in DIRECTORIES {
            let path = home.path().join(directory).join(FILE);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "type: generic").unwrap();
            assert_eq!(find().unwrap().1, Some(path.clone()), "{directory}");
            if !directory.is_empty() {
                let root = home.path().join(FILE);
                fs::write(&root, "").unwrap();
                let error = find().unwrap_err().to_string();
                assert!(error.contains(&format!("{root:?}, {path:?}")), "{error}");
                fs::remove_file(root).unwrap();
            }
            fs::remove_file(path).unwrap();
        }
        assert!(matches!(Template::find(home.path(), Some(Path::new("/none"))), Err(TemplateError::Missing(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}|(type|mem|[a-z]{1,6}|: |\\[|\\]|\\{|\\}|&a |\\*a |- |\n|  ){0,30}") {
            let _ = Template::parse(&text);
        }
    }
}
