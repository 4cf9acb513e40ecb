//! Opens a tenant's file without following a link and without waiting for a writer, and reads it up to a limit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

/// A regular file that a tenant wrote.
#[derive(Debug)]
pub struct TenantFile {
    file: File,
    /// The owner's uid.
    pub owner: u32,
    /// The size in bytes when the file was opened.
    pub size: u64,
}

/// Why a tenant's file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The last component of the path is a symbolic link.
    #[error("it is a symbolic link, expected a regular file")]
    Link,
    /// A FIFO, a device, a directory ...
    #[error("it is not a regular file")]
    NotRegular,
    /// The file exceeds the limit.
    #[error("it has more than {max_len} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max_len: usize,
    },
    /// The content is binary.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// The system refuses to open or read the file.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
}

impl TenantFile {
    /// Opens a file for reading; `None` if there is none.
    ///
    /// # Errors
    /// [`FileProblem::Link`], [`FileProblem::NotRegular`] or [`FileProblem::Unreadable`].
    pub fn open(path: &Path) -> Result<Option<Self>, FileProblem> {
        Self::open_at(CWD, path.as_os_str())
    }

    /// Opens a file for writing, with flags such as `APPEND`; creates it with this mode if there is none.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_or_create(path: &Path, access: OFlags, mode: u32) -> Result<Self, FileProblem> {
        let flags = access | OFlags::CREATE | OFlags::NOFOLLOW;
        Self::open_with(CWD, path.as_os_str(), flags, Mode::from_raw_mode(mode))
    }

    /// Like [`Self::open`], but follows links: for a process of the tenant, which may read what the tenant may read.
    pub fn open_as_tenant(path: &Path) -> Result<Option<Self>, FileProblem> {
        existing(Self::open_with(CWD, path.as_os_str(), OFlags::RDONLY, Mode::empty()))
    }

    /// Like [`Self::open`] for a name in a directory.
    pub fn open_at(directory: impl AsFd, name: &OsStr) -> Result<Option<Self>, FileProblem> {
        existing(Self::open_with(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()))
    }

    fn open_with(directory: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> Result<Self, FileProblem> {
        let always = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat(directory, name, flags | always, mode).map_err(|error| match error {
            Errno::LOOP if flags.contains(OFlags::NOFOLLOW) => FileProblem::Link,
            // A FIFO or a socket, a device without a driver, a directory.
            Errno::NXIO | Errno::NODEV | Errno::ISDIR => FileProblem::NotRegular,
            error => FileProblem::Unreadable(error.into()),
        });
        let file = File::from(opened?);
        let status = fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(FileProblem::NotRegular);
        }
        Ok(Self { file, owner: status.st_uid, size: u64::try_from(status.st_size).unwrap_or(u64::MAX) })
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// [`FileProblem::TooLarge`] or [`FileProblem::Unreadable`].
    pub fn read(self, max_len: usize) -> Result<Vec<u8>, FileProblem> {
        // Checked before reading, and again while reading: the file may grow.
        if self.size > max_len as u64 {
            return Err(FileProblem::TooLarge { max_len });
        }
        let mut content = Vec::new();
        self.file.take(max_len as u64 + 1).read_to_end(&mut content)?;
        if content.len() > max_len { Err(FileProblem::TooLarge { max_len }) } else { Ok(content) }
    }

    /// The open file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Reads the whole file as text.
    ///
    /// # Errors
    /// Those of [`Self::read`], or [`FileProblem::NotUtf8`].
    pub fn read_text(self, max_len: usize) -> Result<String, FileProblem> {
        String::from_utf8(self.read(max_len)?).map_err(|_| FileProblem::NotUtf8)
    }
}

/// `None` if there is no file.
fn existing(opened: Result<TenantFile, FileProblem>) -> Result<Option<TenantFile>, FileProblem> {
    match opened {
        Err(FileProblem::Unreadable(error))
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let read = |name: &str| -> Result<Option<String>, String> {
            let file = TenantFile::open(&path(name)).map_err(|problem| problem.to_string())?;
            file.map(|file| file.read_text(5)).transpose().map_err(|problem| problem.to_string())
        };
        fs::write(path("five"), "12345").unwrap();
        fs::write(path("six"), "123456").unwrap();
        fs::write(path("binary"), b"\xff").unwrap();
        File::create(path("sparse")).unwrap().set_len(1 << 30).unwrap();
        symlink(path("five"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(read("five"), Ok(Some("12345".into())));
        assert_eq!(read("none"), Ok(None));
        assert_eq!(read("five/below"), Ok(None));
        for (name, words) in [
            ("six", "more than 5 bytes"),
            ("sparse", "more than 5 bytes"),
            ("binary", "not UTF-8"),
            ("link", "symbolic link"),
            ("directory", "not a regular file"),
            ("fifo", "not a regular file"),
            ("socket", "not a regular file"),
        ] {
            assert!(read(name).is_err_and(|error| error.contains(words)), "{name}: {:?}", read(name));
        }
    }
}
