//! What a type needs in a tool's home before it can run.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, de};

use super::home_path::HomePath;
use super::npm_script::{self, ScriptError};

/// One need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// At least one of these exists.
    AnyOf(Vec<HomePath>),
    /// A package.json with a script.
    Script(PackageScript),
}

/// A script in a package.json.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageScript {
    package: HomePath,
    script: String,
}

/// Why a web service cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum NeedError {
    /// The type's command is the tool's own, and was not given.
    #[error("type {0:?} runs a command of your own, and none was given; write it last, e.g. `-- ./server --verbose`")]
    NoCommand(String),
    /// The type takes no arguments.
    #[error("type {name:?} takes no arguments, but {extra:?} was given; remove it")]
    UnexpectedArgument {
        /// The type.
        name: String,
        /// The first of them.
        extra: String,
    },
    /// A file or directory is missing.
    #[error("type {name:?} needs {what}, which does not exist; create it, then start again")]
    Missing {
        /// The type.
        name: String,
        /// The paths, in words.
        what: String,
    },
    /// A file is a directory, or the other way round.
    #[error("type {name:?} needs {path:?}, which is not a {expected}")]
    WrongKind {
        /// The type.
        name: String,
        /// The path.
        path: PathBuf,
        /// `regular file` or `directory`.
        expected: &'static str,
    },
    /// The system does not say whether something is there.
    #[error("type {name:?} needs {path:?}: {error}")]
    Unreadable {
        /// The type.
        name: String,
        /// The path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// npm cannot run the script.
    #[error("type {name:?} needs a script in package.json: {error}")]
    Script {
        /// The type.
        name: String,
        /// The reason.
        error: ScriptError,
    },
}

impl NeedError {
    /// Whether the command line is wrong, not the home.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoCommand(_) | Self::UnexpectedArgument { .. })
    }
}

impl Need {
    /// Checks the need of the type `name` in `home`.
    pub fn check(&self, name: &str, home: &Path) -> Result<(), NeedError> {
        let name = || name.to_owned();
        match self {
            Self::Script(PackageScript { package, script }) => npm_script::find(&package.below(home), script)
                .map_err(|error| NeedError::Script { name: name(), error }),
            Self::AnyOf(paths) => {
                let mut found = None;
                for path in paths {
                    match Self::find(path, home) {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(error) => found = found.or(Some((path.below(home), error, path.is_directory()))),
                    }
                }
                Err(match found {
                    None => NeedError::Missing { name: name(), what: in_words(paths, home) },
                    Some((path, Some(error), _)) => NeedError::Unreadable { name: name(), path, error },
                    Some((path, None, is_directory)) => {
                        let expected = if is_directory { "directory" } else { "regular file" };
                        NeedError::WrongKind { name: name(), path, expected }
                    }
                })
            }
        }
    }

    /// Whether it is there. The error is `None` for something else of that name.
    fn find(path: &HomePath, home: &Path) -> Result<bool, Option<io::Error>> {
        match fs::metadata(path.below(home)) {
            Ok(found) if path.fits(&found) => Ok(true),
            Ok(_) => Err(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Some(error)),
        }
    }
}

/// `the directory "/home/a" or the file "/home/b"`.
fn in_words(paths: &[HomePath], home: &Path) -> String {
    let noun = |path: &HomePath| if path.is_directory() { "the directory" } else { "the file" };
    let words: Vec<_> = paths.iter().map(|path| format!("{} {:?}", noun(path), path.below(home))).collect();
    words.join(" or ")
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Need;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, a list of paths, or {package: PATH, script: NAME}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Need, E> {
                HomePath::try_new(text).map(|path| Need::AnyOf(vec![path])).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Need, A::Error> {
                let paths = Vec::deserialize(SeqAccessDeserializer::new(items))?;
                if paths.is_empty() {
                    Err(de::Error::custom("empty list, expected paths"))
                } else {
                    Ok(Need::AnyOf(paths))
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Need, A::Error> {
                PackageScript::deserialize(MapAccessDeserializer::new(map)).map(Need::Script)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_need_names_what_to_create() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let need: Need = serde_saphyr::from_str("[site/, .site.conf]").unwrap();
        let reason = || need.check("x", home.path()).map_err(|error| error.to_string());
        let (site, file) = (at("site"), at(".site.conf"));
        assert_eq!(
            reason(),
            Err(format!(
                "type \"x\" needs the directory {site:?} or the file {file:?}, which does not exist; create it, then start again"
            ))
        );
        fs::write(&site, "").unwrap();
        assert_eq!(reason(), Err(format!("type \"x\" needs {site:?}, which is not a directory")));
        fs::write(&file, "").unwrap();
        assert_eq!(reason(), Ok(()));
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(".site.conf", &file).unwrap();
        fs::remove_file(&site).unwrap();
        assert!(reason().unwrap_err().contains("symbolic links"));
        fs::create_dir(&site).unwrap();
        assert_eq!(reason(), Ok(()));
    }
}
