//! Looks through all tools' directories for manifests, and trusts none of them.
//!
//! What a tool puts in place of its manifest costs itself its service and others nothing: every file is opened without
//! following a link and without waiting for a writer, and read only up to a limit. Only a file system that hangs as a whole
//! cannot be helped.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::account::{Account, Accounts};
use super::manifest::{MAX_MANIFEST_BYTES, MIN_UID, Manifest, Skip, Word, parse_manifest};

/// Where manifests are: `<directory>/*/<file>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    directory: PathBuf,
    file: OsString,
}

/// A tool that has a manifest.
#[derive(Debug)]
pub struct Tool {
    /// The name of its directory.
    pub name: String,
    /// Who it is; known when its manifest is its own.
    pub account: Option<Account>,
    /// What it wants, or why that does not count.
    pub manifest: Result<Manifest, Skip>,
}

/// Whose manifests are looked for, and which of them count.
#[derive(Clone, Debug)]
pub struct Surveyor<A> {
    /// Where they are.
    pub places: Places,
    /// Accounts are `<project>.<tool>`.
    pub project: String,
    /// Which release's count; `None` is any.
    pub distribution: Option<Word>,
    /// That of manifests without one.
    pub default_release: Option<Word>,
    /// Who is who.
    pub accounts: A,
}

impl Places {
    /// Reads `/data/project/*/service.manifest`.
    ///
    /// # Errors
    /// Another shape of pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid pattern {text:?}, expected e.g. \"/data/project/*/service.manifest\"");
        let (directory, file) = text.split_once("/*/").ok_or_else(wrong)?;
        let is_plain = |part: &str| !part.contains(['*', '?', '[']);
        if !directory.starts_with('/')
            || !is_plain(directory)
            || !is_plain(file)
            || file.is_empty()
            || file.contains('/')
        {
            return Err(wrong());
        }
        Ok(Self { directory: directory.into(), file: file.into() })
    }

    /// A tool's directory.
    pub fn home(&self, tool: &str) -> PathBuf {
        self.directory.join(tool)
    }

    /// The directory of all of them.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl<A: Accounts> Surveyor<A> {
    /// Every tool that has a manifest, or something in its place, by name.
    ///
    /// # Errors
    /// The directory of all tools cannot be read.
    pub fn survey(&self) -> io::Result<Vec<Tool>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, &self.places.directory, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let is_dir = matches!(entry.file_type(), FileType::Directory | FileType::Symlink | FileType::Unknown);
            let name = entry.file_name().to_bytes();
            if is_dir && name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable();
        Ok(names.iter().filter_map(|name| self.look_at(&directory, name)).collect())
    }

    /// `None` without a manifest.
    fn look_at(&self, directory: &OwnedFd, name: &OsStr) -> Option<Tool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty()) {
            Ok(home) => openat(&home, &self.places.file, flags, Mode::empty()).map_err(|error| ("manifest", error)),
            // Which of the two it is called depends on the kernel.
            Err(Errno::LOOP | Errno::NOTDIR) if is_link(directory, name) => Err(("directory", Errno::LOOP)),
            Err(error) => Err(("directory", error)),
        };
        let shown = name.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let skipped = |skip| Some(Tool { name: shown, account: None, manifest: Err(skip) });
        let file = match file {
            Ok(file) => file,
            Err((_, Errno::NOENT | Errno::NOTDIR)) => return None,
            Err((what, Errno::LOOP)) => return skipped(Skip::Link(what)),
            // A socket, or a device without a driver.
            Err((_, Errno::NXIO | Errno::NODEV)) => return skipped(Skip::NotRegular),
            Err((_, error)) => return skipped(Skip::Unreadable(error.into())),
        };
        let Some(tool) = tool_name(name) else { return skipped(Skip::Name) };
        let (account, size) = match self.check(&file, tool) {
            Ok(found) => found,
            Err(skip) => return skipped(skip),
        };
        // Before it is read, and again while it is: it may grow.
        let content = if size > MAX_MANIFEST_BYTES as u64 { Err(Skip::TooLarge) } else { read(file) };
        let (distribution, default) = (self.distribution.as_ref(), self.default_release.as_ref());
        let manifest = content.and_then(|content| parse_manifest(&content, distribution, default));
        Some(Tool { name: tool.to_owned(), account: Some(account), manifest })
    }

    /// Whose it is, when it is the tool's, and its size.
    fn check(&self, file: &OwnedFd, tool: &str) -> Result<(Account, u64), Skip> {
        let status = fstat(file).map_err(|error| Skip::Unreadable(error.into()))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Skip::NotRegular);
        }
        let owner = status.st_uid;
        if owner < MIN_UID {
            return Err(Skip::SystemOwner(owner));
        }
        let name = format!("{}.{tool}", self.project);
        let Some(account) = self.accounts.find(&name) else { return Err(Skip::NoAccount(name)) };
        if account.uid != owner {
            return Err(Skip::WrongOwner { owner, account: name, uid: account.uid });
        }
        Ok((account, u64::try_from(status.st_size).unwrap_or(u64::MAX)))
    }
}

fn is_link(directory: &OwnedFd, name: &OsStr) -> bool {
    let status = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Symlink)
}

/// A name that an account can have, and that is no option to any program.
fn tool_name(name: &OsStr) -> Option<&str> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let bytes = name.as_bytes();
    let is_name = bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().copied().all(is_inner);
    name.to_str().filter(|name| is_name && name.len() <= 64)
}

fn read(file: OwnedFd) -> Result<Vec<u8>, Skip> {
    let mut content = Vec::new();
    let most = MAX_MANIFEST_BYTES as u64 + 1;
    std::fs::File::from(file).take(most).read_to_end(&mut content).map_err(Skip::Unreadable)?;
    Ok(content)
}
