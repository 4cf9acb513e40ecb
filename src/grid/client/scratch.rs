//! A private directory for the generated files and the sockets of one run.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::iter::repeat_with;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where it is if `TMPDIR` does not say, or says something too long.
const DEFAULT_PARENT: &str = "/tmp";
/// The longest path of a directory, so that a unix socket in it has a name of at most 107 bytes, unix(7).
const MAX_PATH_LEN: usize = 80;
/// Tries to find a free name.
const TRIES: usize = 100;

/// A directory with mode 0700, removed when this is dropped. The group leader removes it if this program is killed.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates one below `TMPDIR`, or else in /tmp.
    pub fn create() -> io::Result<Self> {
        let mut names = repeat_with(|| name(&repeat_with(fastrand::alphanumeric).take(8).collect::<String>()));
        for path in names.by_ref().take(TRIES) {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Its path, which only printable characters have.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The group leader may have removed it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The path with this unique part.
pub fn name(unique: &str) -> PathBuf {
    let name = format!("webservice-{unique}");
    let is_usable = |path: &PathBuf| {
        let bytes = path.as_os_str().as_bytes();
        path.is_absolute() && bytes.len() <= MAX_PATH_LEN && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = env::var_os("TMPDIR").map(|parent| Path::new(&parent).join(&name)).filter(is_usable);
    given.unwrap_or_else(|| Path::new(DEFAULT_PARENT).join(name))
}
