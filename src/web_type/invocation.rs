//! One start of a web service: the values that its command and configuration depend on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::command_template::Placeholder;

/// What differs between tools, and between starts.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// Its home.
    pub home: &'a Path,
    /// The server's port.
    pub port: u16,
    /// Whether the tool has a host of its own, so that it is at `/` and not at `/TOOL`.
    pub canonical: bool,
    /// The log for errors, if it is usable.
    pub error_log: Option<&'a Path>,
    /// A private directory of this start, for generated files.
    pub scratch: &'a Path,
    /// The arguments after the type.
    pub extra: &'a [OsString],
}

impl Invocation<'_> {
    /// Where the tool is mounted: `/TOOL` or `/`.
    pub fn mount(&self) -> String {
        if self.canonical { "/".into() } else { format!("/{}", self.tool) }
    }

    /// The path of the generated configuration.
    pub fn config(&self) -> PathBuf {
        self.scratch.join("server.conf")
    }

    /// What a placeholder stands for.
    pub(super) fn value(&self, placeholder: Placeholder) -> OsString {
        match placeholder {
            Placeholder::Port => self.port.to_string().into(),
            Placeholder::Home => self.home.into(),
            Placeholder::Tool => self.tool.into(),
            Placeholder::Mount => self.mount().into(),
            Placeholder::Config => self.config().into(),
        }
    }
}
