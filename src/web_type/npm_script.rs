//! Finds a script in a package.json, which npm runs.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::home_file::{self, HomeFileError};
use crate::tenant::shorten;

/// The largest package.json, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Why npm cannot run the script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file is missing.
    #[error("{0:?} does not exist; create it with `npm init` in its directory, and add the script {1:?}")]
    Missing(PathBuf, String),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] HomeFileError),
    /// The file is not JSON, or not an object.
    #[error("{path:?} is not a valid package.json: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// With the position.
        reason: String,
    },
    /// The file has no such script.
    #[error("{path:?} has no script {script:?}; add e.g. \"scripts\": {{\"{script}\": \"node server.js\"}}")]
    NoScript {
        /// The file.
        path: PathBuf,
        /// Its name.
        script: String,
    },
}

/// Checks that the file at `path` has the script.
pub fn find(path: &Path, script: &str) -> Result<(), ScriptError> {
    let missing = || ScriptError::Missing(path.to_owned(), script.to_owned());
    find_in(&home_file::read(path, MAX_BYTES)?.ok_or_else(missing)?, path, script)
}

/// Checks that this content of the file at `path` has the script.
pub fn find_in(content: &[u8], path: &Path, script: &str) -> Result<(), ScriptError> {
    // npm accepts a byte order mark.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let invalid =
        |error: serde_json::Error| ScriptError::Invalid { path: path.to_owned(), reason: shorten(&error.to_string()) };
    // No derived type, which would take an array of the values, too.
    let mut package: Map<String, Value> = serde_json::from_slice(content).map_err(invalid)?;
    let scripts = package.remove("scripts").map(serde_json::from_value::<Map<String, Value>>);
    let scripts = scripts.transpose().map_err(invalid)?.unwrap_or_default();
    let is_there = scripts.get(script).is_some_and(|text| text.as_str().is_some_and(|text| !text.is_empty()));
    if is_there { Ok(()) } else { Err(ScriptError::NoScript { path: path.to_owned(), script: script.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    fn found(content: &[u8]) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("package.json");
        fs::write(&path, content).unwrap();
        find(&path, "start").map_err(|error| error.to_string().replace(&format!("{path:?} "), ""))
    }

    #[test]
    fn start_script_is_found_or_the_reason_is_given() {
        for (content, want) in [
            (r#"{"scripts": {"start": "node ."}}"#, Ok(())),
            ("\u{feff}{\"name\": \"x\", \"scripts\": {\"test\": \"x\", \"start\": \"node .\"}, \"n\": [1]}", Ok(())),
            (r#"{}"#, Err("has no script \"start\"")),
            (r#"{"scripts": {"Start": "node ."}}"#, Err("has no script \"start\"")),
            (r#"{"scripts": {"start": ""}}"#, Err("has no script \"start\"")),
            (r#"{"scripts": {"start": 3}}"#, Err("has no script \"start\"")),
            (r#"{"scripts": 3}"#, Err("is not a valid package.json: invalid type: integer `3`, expected a map")),
            (r#"[{"start": "node ."}]"#, Err("is not a valid package.json: invalid type: sequence, expected a map")),
            ("", Err("is not a valid package.json: EOF")),
            ("scripts", Err("is not a valid package.json: expected value at line 1 column 1")),
            ("[1]", Err("is not a valid package.json")),
            (r#"{"scripts": {"start": "a"}} x"#, Err("is not a valid package.json: trailing characters")),
        ] {
            match (found(content.as_bytes()), want) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(want)) => assert!(error.starts_with(want), "{content}: {error}"),
                (found, _) => panic!("{content}: {found:?}"),
            }
        }
        let long = format!("{{\"scripts\": \"{}\"}}", "x".repeat(100_000));
        assert!(found(long.as_bytes()).unwrap_err().len() < 300, "the reason is shortened");
        let deep = format!("{{\"scripts\": {}", "[".repeat(100_000));
        assert!(found(deep.as_bytes()).unwrap_err().starts_with("is not a valid"));
        assert!(found(&vec![b' '; MAX_BYTES + 1]).unwrap_err().contains("has more than 1048576 bytes"));
    }

    proptest! {
        #[test]
        fn any_content_is_answered(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = found(&content);
        }
    }
}
