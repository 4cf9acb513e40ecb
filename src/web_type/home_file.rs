//! Reads a file in a tool's home, as the tool's user. The home's owner may put anything there.

use std::path::{Path, PathBuf};

use crate::tenant::{FileProblem, TenantFile};

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} cannot be read: {problem}")]
pub struct HomeFileError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub problem: FileProblem,
}

/// Reads a regular file of at most `max_len` bytes; `None` if there is none. Follows links.
pub fn read(path: &Path, max_len: usize) -> Result<Option<Vec<u8>>, HomeFileError> {
    let read = TenantFile::open_as_tenant(path).and_then(|file| file.map(|file| file.read(max_len)).transpose());
    read.map_err(|problem| HomeFileError { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at("file"), "12345678").unwrap();
        fs::write(at("long"), "123456789").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
        for (name, want) in [
            ("file", "12345678"),
            ("link", "12345678"),
            ("dangling", "missing"),
            ("none", "missing"),
            ("directory", "it is not a regular file"),
            ("fifo", "it is not a regular file"),
            ("device", "it is not a regular file"),
            ("long", "it has more than 8 bytes"),
            ("sparse", "it has more than 8 bytes"),
            ("loop", "Too many levels of symbolic links"),
        ] {
            let path = at(name);
            let outcome = match read(&path, 8) {
                Ok(content) => content.map_or("missing".into(), |content| String::from_utf8(content).unwrap()),
                Err(error) => error.to_string().replace(&format!("{path:?} cannot be read: "), ""),
            };
            assert!(outcome.starts_with(want), "{name}: {outcome}");
        }
    }
}
