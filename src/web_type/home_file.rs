//! Reads a file in a tool's home, as the tool's user. The home's owner may put anything there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum HomeFileError {
    /// The system refuses to open or read it.
    #[error("{error} while reading {path:?}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A FIFO, a device, a directory ...
    #[error("{0:?} is not a regular file")]
    NotRegular(PathBuf),
    /// Longer than the limit.
    #[error("{path:?} has more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// In bytes.
        limit: usize,
    },
}

/// Reads a regular file of at most `limit` bytes; `None` if there is none. Follows links: this process is the tool's own, and may
/// read what the tool may read. Never waits for a FIFO or a device.
pub fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, HomeFileError> {
    let unreadable = |error: io::Error| HomeFileError::Unreadable { path: path.to_owned(), error };
    let too_large = || HomeFileError::TooLarge { path: path.to_owned(), limit };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(unreadable(error.into())),
    };
    let stat = fstat(&file).map_err(|error| unreadable(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(HomeFileError::NotRegular(path.to_owned()));
    }
    if usize::try_from(stat.st_size).map_or(true, |size| size > limit) {
        return Err(too_large());
    }
    let mut content = Vec::new();
    // It may grow meanwhile.
    File::from(file).take(limit as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() > limit { Err(too_large()) } else { Ok(Some(content)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at("file"), "12345678").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
        let outcome = |path: &Path| match read(path, 8) {
            Ok(content) => content.map_or("missing".into(), |content| String::from_utf8(content).unwrap()),
            Err(error) => {
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                error.to_string().replace(&format!("{path:?} "), "")
            }
        };
        for (name, want) in [
            ("file", "12345678"),
            ("link", "12345678"),
            ("dangling", "missing"),
            ("none", "missing"),
            ("directory", "is not a regular file"),
            ("fifo", "is not a regular file"),
            ("sparse", "has more than 8 bytes"),
        ] {
            assert_eq!(outcome(&at(name)), want, "{name}");
        }
        assert!(outcome(&at("loop")).contains("symbolic links"), "{}", outcome(&at("loop")));
        assert_eq!(outcome(Path::new("/dev/zero")), "is not a regular file");
        fs::write(at("file"), "123456789").unwrap();
        assert_eq!(outcome(&at("file")), "has more than 8 bytes");
    }
}
