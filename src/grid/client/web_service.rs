//! The web service that webservice-runner runs: its type, for this account, with the arguments of the command line.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failure::{Failure, HasExitStatus};
use super::own_account::OwnAccount;
use super::status::{EX_CONFIG, EX_NOINPUT};
use crate::daemon::EX_USAGE;
use crate::web_type::{Invocation, NeedError, PrepareError, PreparedCommand, SiteConfig, SiteConfigError, WebType};

/// A type of web service, and what it depends on.
#[derive(Debug)]
pub struct WebService {
    web_type: WebType,
    account: OwnAccount,
    home: PathBuf,
    tool: String,
    canonical: bool,
    extra: Vec<OsString>,
    /// The log for errors, if it is in use.
    pub error_log: Option<PathBuf>,
}

/// A name that is no type.
#[derive(Debug, thiserror::Error)]
#[error("unknown type {name:?}, expected one of {known}")]
pub struct UnknownType {
    name: String,
    known: String,
}

impl HasExitStatus for UnknownType {
    fn status(&self) -> u8 {
        EX_USAGE
    }
}

impl HasExitStatus for SiteConfigError {
    fn status(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::Unreadable(_) => EX_NOINPUT,
            Self::NotUtf8(_) | Self::Invalid { .. } => EX_CONFIG,
        }
    }
}

impl HasExitStatus for NeedError {
    fn status(&self) -> u8 {
        if self.is_usage() { EX_USAGE } else { EX_CONFIG }
    }
}

impl HasExitStatus for PrepareError {
    fn status(&self) -> u8 {
        EX_CONFIG
    }
}

impl WebService {
    /// Finds the type, and checks that this account has what it needs.
    pub fn find(site: &SiteConfig, name: &str, canonical: bool, extra: Vec<OsString>) -> Result<Self, Failure> {
        let web_type = site.web_type(name).ok_or_else(|| {
            let known: Vec<_> = site.types().flat_map(WebType::names).collect();
            UnknownType { name: name.to_owned(), known: known.join(", ") }
        })?;
        let account = OwnAccount::current();
        let home = account.home();
        web_type.check_needs(&home, &extra)?;
        let (web_type, tool) = (web_type.clone(), account.tool());
        Ok(Self { web_type, account, home, tool, canonical, extra, error_log: None })
    }

    /// The tool's home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Changes to the home, if there is one.
    pub fn enter_home(&self) {
        self.account.enter_home();
    }

    /// Whether its command needs a directory for generated files.
    pub fn needs_scratch(&self) -> bool {
        self.web_type.has_configuration()
    }

    /// The command for one start.
    pub fn command(&self, port: u16, scratch: &Path) -> Result<PreparedCommand, PrepareError> {
        let Self { home, tool, canonical, extra, error_log, .. } = self;
        let error_log = error_log.as_deref();
        self.web_type.command(&Invocation { tool, home, port, canonical: *canonical, error_log, scratch, extra })
    }

    /// The same, with its generated files in place.
    pub fn prepare(&self, port: u16, scratch: &Path) -> Result<PreparedCommand, Failure> {
        let command = self.command(port, scratch)?;
        if let Some((path, content)) = &command.configuration {
            write_private(path, content).map_err(|error| Failure::system(error, &format!("writing {path:?}")))?;
        }
        Ok(command)
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)
}
