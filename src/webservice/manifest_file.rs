//! service.manifest in the home: read safely, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};

use crate::tenant::{FileProblem, MAX_MANIFEST_BYTES, Manifest, TenantFile};
use crate::web_type::BackendName;

/// The file, and its next content.
const FILE: &str = "service.manifest";
const NEXT: &str = "service.manifest~";
/// As old versions make it: webservicemonitor and the tool's maintainers read it.
const MODE: u32 = 0o644;

/// Why the manifest cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("manifest {path:?}: {problem}; remove it, then run the command again")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The content is invalid.
    #[error("manifest {path:?}: {reason}; correct or remove it, then run the command again")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
    /// The new content would be too long to be read again.
    #[error(
        "the arguments need a manifest of {len} bytes, expected at most {MAX_MANIFEST_BYTES}; put them into a file of yours"
    )]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The new content could not be read again.
    #[error("the arguments are too many for a manifest: {0}; put them into a file of yours")]
    TooMany(String),
    /// The system refuses to write it.
    #[error("{error} while writing {path:?}; nothing was started or stopped{hint}")]
    NotWritten {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
        /// What may help.
        hint: &'static str,
    },
    /// The system refuses to rename it.
    #[error(
        "{error} while renaming {path:?} to service.manifest; the web service is not kept running until you restart it"
    )]
    NotRenamed {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// The manifest of a home.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    path: PathBuf,
    next: PathBuf,
}

/// A new content on disk, not yet in effect; removed when dropped.
#[derive(Debug)]
pub struct NextManifest<'a> {
    file: &'a ManifestFile,
    is_committed: bool,
}

impl ManifestFile {
    /// The manifest in a home.
    pub fn new(home: &Path) -> Self {
        Self { path: home.join(FILE), next: home.join(NEXT) }
    }

    /// Reads the manifest; `None` if there is none.
    ///
    /// # Errors
    /// [`ManifestError::File`] or [`ManifestError::Invalid`].
    pub fn read(&self) -> Result<Option<Manifest>, ManifestError> {
        read(&self.path)
    }

    /// What a command that was killed meant to put in effect.
    pub fn read_leftover(&self) -> Option<Manifest> {
        read(&self.next).ok().flatten()
    }

    /// Puts in effect what a killed command left.
    ///
    /// # Errors
    /// [`ManifestError::NotRenamed`].
    pub fn adopt_leftover(&self) -> Result<(), ManifestError> {
        NextManifest { file: self, is_committed: false }.commit()
    }

    /// Writes a new content, which takes effect with [`NextManifest::commit`]. Replaces what a killed command left.
    ///
    /// # Errors
    /// The content is too long, or the system refuses.
    pub fn prepare(&self, manifest: &Manifest) -> Result<NextManifest<'_>, ManifestError> {
        let text = manifest.to_text();
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong { len: text.len() });
        }
        Manifest::parse(&text).map_err(ManifestError::TooMany)?;
        self.discard_leftover()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, &self.next, flags, Mode::from_raw_mode(MODE));
        let mut file = File::from(opened.map_err(|error| self.not_written(error.into()))?);
        // From here on, a failure removes the file.
        let next = NextManifest { file: self, is_committed: false };
        // The maintainer's umask may be stricter.
        let is_readable = fchmod(&file, Mode::from_raw_mode(MODE)).map_err(io::Error::from);
        let written = is_readable.and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
        written.map_err(|error| self.not_written(error))?;
        Ok(next)
    }

    /// Takes the web service out of the manifest; the file stays. On a full disk, it is overwritten in place.
    ///
    /// # Errors
    /// The manifest cannot be read or written.
    pub fn remove_service(&self) -> Result<(), ManifestError> {
        self.replace(Manifest::without_service)
    }

    /// The same, but the backend stays, so that later commands look there.
    ///
    /// # Errors
    /// As for [`remove_service`](Self::remove_service).
    pub fn remove_all_but_backend(&self, backend: BackendName) -> Result<(), ManifestError> {
        self.replace(|manifest| {
            let is_there = manifest.web.is_some() || manifest.backend.is_some();
            Manifest { backend: is_there.then(|| backend.as_str().to_owned()), ..manifest.without_service() }
        })
    }

    fn replace(&self, change: impl FnOnce(Manifest) -> Manifest) -> Result<(), ManifestError> {
        self.discard_leftover()?;
        let Some(manifest) = self.read()? else { return Ok(()) };
        let stopped = change(manifest.clone());
        if stopped == manifest {
            return Ok(());
        }
        match self.prepare(&stopped) {
            Ok(next) => next.commit(),
            Err(ManifestError::NotWritten { error, .. })
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                // The new text is shorter, so that it needs no space.
                self.overwrite(&stopped.to_text()).map_err(|error| self.not_written(error))
            }
            Err(error) => Err(error),
        }
    }

    fn overwrite(&self, text: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = File::from(openat(CWD, &self.path, flags, Mode::empty())?);
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    }

    /// Removes what a killed command left.
    ///
    /// # Errors
    /// A directory is in its place, or the home is not writable.
    pub fn discard_leftover(&self) -> Result<(), ManifestError> {
        match fs::remove_file(&self.next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.not_written(error)),
            _ => Ok(()),
        }
    }

    fn not_written(&self, error: io::Error) -> ManifestError {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; remove files that you do not need",
            io::ErrorKind::IsADirectory => "; remove this directory",
            io::ErrorKind::PermissionDenied => "; the home must be writable for the tool's account",
            _ => "",
        };
        ManifestError::NotWritten { path: self.next.clone(), error, hint }
    }
}

impl NextManifest<'_> {
    /// Puts the content in effect.
    ///
    /// # Errors
    /// [`ManifestError::NotRenamed`].
    pub fn commit(mut self) -> Result<(), ManifestError> {
        let ManifestFile { path, next } = self.file;
        fs::rename(next, path).map_err(|error| ManifestError::NotRenamed { path: next.clone(), error })?;
        self.is_committed = true;
        // If the system does not do that, a crash of the machine may bring the old manifest back.
        if let Some(home) = path.parent() {
            let _ = File::open(home).and_then(|home| home.sync_all());
        }
        Ok(())
    }
}

impl Drop for NextManifest<'_> {
    fn drop(&mut self) {
        if !self.is_committed {
            let _ = fs::remove_file(&self.file.next);
        }
    }
}

fn read(path: &Path) -> Result<Option<Manifest>, ManifestError> {
    let problem = |problem| ManifestError::File { path: path.to_owned(), problem };
    let Some(file) = TenantFile::open(path).map_err(problem)? else { return Ok(None) };
    let text = file.read_text(MAX_MANIFEST_BYTES).map_err(problem)?;
    let parsed = Manifest::parse(&text).map_err(|reason| ManifestError::Invalid { path: path.to_owned(), reason });
    parsed.map(Some)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn link_that_appears_meanwhile_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (file, target) = (ManifestFile::new(home.path()), home.path().join("target"));
        fs::write(&target, "kept").unwrap();
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let _ = symlink(&target, &file.next);
                }
            });
            for _ in 0..500 {
                let _ = file.prepare(&Manifest::default());
            }
            is_done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
    }
}
