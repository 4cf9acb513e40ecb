//! Reads the manifests of all tools, and trusts none of them.
//!
//! A hostile manifest costs only its own tool: every file is opened without following links and without waiting for a writer,
//! and read only up to a limit. Only a file system that hangs as a whole stops the scan.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::manifest::{Manifest, SkipReason, parse_manifest};
use crate::tenant::{Account, Accounts, FileProblem, MAX_MANIFEST_BYTES, MIN_UID, SafeWord, TenantFile};

/// Where manifests are: `<directory>/*/<file>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestGlob {
    directory: PathBuf,
    file: OsString,
}

/// A tool that has a manifest.
#[derive(Debug)]
pub struct Tool {
    /// The name of the tool's directory.
    pub name: String,
    /// The tool's account; known if it owns the manifest.
    pub account: Option<Account>,
    /// The manifest, or why the tool is skipped.
    pub manifest: Result<Manifest, SkipReason>,
}

/// Finds and reads manifests.
#[derive(Clone, Debug)]
pub struct ManifestScanner<A> {
    pub glob: ManifestGlob,
    /// Accounts are named `<project>.<tool>`.
    pub project: String,
    /// The release of this grid; `None` accepts any.
    pub distribution: Option<SafeWord>,
    /// The release of manifests without one.
    pub default_release: Option<SafeWord>,
    pub accounts: A,
}

impl ManifestGlob {
    /// Reads a pattern such as `/data/project/*/service.manifest`: absolute, with one directory level as the only wildcard.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid pattern {text:?}, expected e.g. \"/data/project/*/service.manifest\"");
        let (directory, file) = text.split_once("/*/").ok_or_else(invalid)?;
        let is_plain = |part: &str| !part.contains(['*', '?', '[']);
        if !directory.starts_with('/')
            || !is_plain(directory)
            || !is_plain(file)
            || file.is_empty()
            || file.contains('/')
        {
            return Err(invalid());
        }
        Ok(Self { directory: directory.into(), file: file.into() })
    }

    /// A tool's directory.
    pub fn home(&self, tool: &str) -> PathBuf {
        self.directory.join(tool)
    }

    /// The directory of all tools.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl<A: Accounts> ManifestScanner<A> {
    /// All tools with a manifest, or with something else in its place, by name.
    ///
    /// # Errors
    /// The directory of all tools is unreadable.
    pub fn scan(&self) -> io::Result<Vec<Tool>> {
        let directory = self.open_directory()?;
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
        Ok(names.iter().filter_map(|name| self.read_tool(&directory, name)).collect())
    }

    /// Whether a tool still wants this web service.
    pub fn still_wants(&self, tool: &str, manifest: &Manifest) -> bool {
        let directory = self.open_directory().ok();
        let found = directory.and_then(|directory| self.read_tool(&directory, OsStr::new(tool)));
        found.is_some_and(|found| found.manifest.is_ok_and(|now| now == *manifest))
    }

    fn open_directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(CWD, &self.glob.directory, flags, Mode::empty())?)
    }

    /// `None` without a manifest.
    fn read_tool(&self, directory: &OwnedFd, name: &OsStr) -> Option<Tool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let file = match openat(directory, name, flags, Mode::empty()) {
            Ok(home) => TenantFile::open_at(&home, &self.glob.file).map_err(SkipReason::from),
            Err(Errno::NOENT) => return None,
            // The kernel chooses which of the two it returns for a link.
            Err(Errno::LOOP | Errno::NOTDIR) if is_link(directory, name) => Err(SkipReason::Link("directory")),
            Err(Errno::NOTDIR) => return None,
            Err(error) => Err(SkipReason::Unreadable(error.into())),
        };
        let shown = name.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let skipped = |skip| Some(Tool { name: shown, account: None, manifest: Err(skip) });
        let file = match file {
            Ok(Some(file)) => file,
            Ok(None) => return None,
            Err(skip) => return skipped(skip),
        };
        let Some(tool) = tool_name(name) else { return skipped(SkipReason::Name) };
        let account = match self.check_owner(file.owner, tool) {
            Ok(account) => account,
            Err(skip) => return skipped(skip),
        };
        let (distribution, default) = (self.distribution.as_ref(), self.default_release.as_ref());
        let content = file.read(MAX_MANIFEST_BYTES).map_err(SkipReason::from);
        let manifest = content.and_then(|content| parse_manifest(&content, distribution, default));
        Some(Tool { name: tool.to_owned(), account: Some(account), manifest })
    }

    /// Checks the owner of a manifest. Returns the tool's account.
    fn check_owner(&self, owner: u32, tool: &str) -> Result<Account, SkipReason> {
        if owner < MIN_UID {
            return Err(SkipReason::SystemOwner(owner));
        }
        let name = format!("{}.{tool}", self.project);
        let Some(account) = self.accounts.find(&name) else { return Err(SkipReason::NoAccount(name)) };
        if account.uid != owner {
            return Err(SkipReason::WrongOwner { owner, account: name, uid: account.uid });
        }
        Ok(account)
    }
}

impl From<FileProblem> for SkipReason {
    fn from(problem: FileProblem) -> Self {
        match problem {
            FileProblem::Link => Self::Link("manifest"),
            FileProblem::NotRegular => Self::NotRegular,
            FileProblem::TooLarge { .. } => Self::TooLarge,
            FileProblem::NotUtf8 => Self::NotUtf8,
            FileProblem::Unreadable(error) => Self::Unreadable(error),
        }
    }
}

fn is_link(directory: &OwnedFd, name: &OsStr) -> bool {
    let status = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Symlink)
}

/// The directory name as a tool name: valid in an account name, and not an option to any program.
fn tool_name(name: &OsStr) -> Option<&str> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let bytes = name.as_bytes();
    let is_name = bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().copied().all(is_inner);
    name.to_str().filter(|name| is_name && name.len() <= 64)
}
