//! Files of the configuration that may be renewed while the process runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bounded_file::read_bounded;

/// Why a file cannot be used. Contains nothing of its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{purpose} file {file:?}: {reason}")]
pub(super) struct FileError {
    /// What the file is for, e.g. `CA`.
    pub(super) purpose: &'static str,
    pub(super) file: PathBuf,
    pub(super) reason: String,
}

/// Parses the files' contents, in their order; an error names the number of the unusable file.
type Parse<T> = fn(&[Vec<u8>]) -> Result<T, (usize, String)>;

/// Files that belong together and the value that they give. They are read with the configuration, when the process may certainly
/// read them, and again for each use. If they then cannot be read, or make no sense, the last good value stays in use.
///
/// Clones share the value. Two of them are equal if they have the same files, whatever those contain.
pub(super) struct Renewed<T>(Arc<Shared<T>>);

struct Shared<T> {
    files: Vec<(&'static str, PathBuf)>,
    parse: Parse<T>,
    // Not taken in a process that is about to fork while another thread holds it: nginx's master has no thread that connects.
    current: Mutex<Current<T>>,
}

struct Current<T> {
    contents: Vec<Vec<u8>>,
    value: T,
}

impl<T: Clone> Renewed<T> {
    /// Reads and parses the files, each with its purpose for errors.
    ///
    /// # Errors
    /// A path is not absolute; a file cannot be read or parsed.
    pub(super) fn read(files: Vec<(&'static str, PathBuf)>, parse: Parse<T>) -> Result<Self, FileError> {
        if let Some((purpose, file)) = files.iter().find(|(_, file)| !file.is_absolute()) {
            return Err(FileError { purpose, file: file.clone(), reason: "the path is not absolute".into() });
        }
        let contents = read_all(&files)?;
        let value = parse(&contents).map_err(|error| unusable(&files, error))?;
        Ok(Self(Arc::new(Shared { files, parse, current: Mutex::new(Current { contents, value }) })))
    }

    /// The files' present value; or the last good one, and why the files are unusable.
    pub(super) fn current(&self) -> (T, Option<FileError>) {
        let Shared { files, parse, current } = &*self.0;
        let mut current = current.lock();
        let renewed = read_all(files).and_then(|contents| {
            if contents != current.contents {
                let value = parse(&contents).map_err(|error| unusable(files, error))?;
                *current = Current { contents, value };
            }
            Ok(())
        });
        (current.value.clone(), renewed.err())
    }

    /// The files, in the order of [`Renewed::read`].
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.files.iter().map(|(_, file)| file)
    }
}

fn read_all(files: &[(&'static str, PathBuf)]) -> Result<Vec<Vec<u8>>, FileError> {
    let read = |(purpose, file): &(&'static str, PathBuf)| {
        read_bounded(file).map_err(|error| FileError { purpose, file: file.clone(), reason: error.to_string() })
    };
    files.iter().map(read).collect()
}

fn unusable(files: &[(&'static str, PathBuf)], (number, reason): (usize, String)) -> FileError {
    let (purpose, file) = files.get(number).cloned().unwrap_or_default();
    FileError { purpose, file, reason }
}

impl<T> Clone for Renewed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Renewed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.files == other.0.files
    }
}

impl<T> Eq for Renewed<T> {}

/// Only the files: their content may be secret.
impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.files.iter().map(|(_, file)| file)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(contents: &[Vec<u8>]) -> Result<String, (usize, String)> {
        let texts: Vec<_> = contents.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect();
        match texts.iter().position(|text| text == "bad") {
            Some(number) => Err((number, "it is bad".into())),
            None => Ok(texts.concat()),
        }
    }

    #[test]
    fn last_good_content_stays_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        fs::write(&one, "a").unwrap();
        fs::write(&two, "b").unwrap();
        let renewed = Renewed::read(vec![("first", one.clone()), ("second", two.clone())], parse).unwrap();
        let shared = renewed.clone();
        assert_eq!(renewed.current(), ("ab".into(), None));
        fs::write(&one, "c").unwrap();
        assert_eq!(renewed.current(), ("cb".into(), None));
        fs::write(&two, "bad").unwrap();
        let (value, error) = shared.current();
        assert_eq!(value, "cb", "the last good value, also in a clone");
        assert_eq!(error.unwrap().to_string(), format!("second file {two:?}: it is bad"));
        fs::remove_file(&one).unwrap();
        let (value, error) = renewed.current();
        let error = error.unwrap().to_string();
        assert!(value == "cb" && error.starts_with(&format!("first file {one:?}: No such file")), "{value} {error}");
        fs::write(&one, "d").unwrap();
        fs::write(&two, "e").unwrap();
        assert_eq!(renewed.current(), ("de".into(), None));
        assert!(!format!("{renewed:?}").contains("de"), "{renewed:?}");
    }

    #[test]
    fn unusable_files_are_refused_at_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let refusal = |file: &PathBuf| Renewed::read(vec![("key", file.clone())], parse).unwrap_err();
        assert!(refusal(&file).reason.starts_with("No such file"));
        assert_eq!(refusal(&"file".into()).to_string(), r#"key file "file": the path is not absolute"#);
        fs::write(&file, "bad").unwrap();
        assert_eq!(refusal(&file).reason, "it is bad");
    }
}
