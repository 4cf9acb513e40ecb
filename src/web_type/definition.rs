//! One type of web service, as the site's configuration defines it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::arguments::Arguments;
use super::backend_name::BackendName;
use super::command_template::{CommandTemplate, Placeholder};
use super::home_path::HomePath;
use super::invocation::Invocation;
use super::lighttpd;
use super::need::{Need, NeedError};
use super::prepared_command::{PrepareError, PreparedCommand};
use super::value;

/// A type of web service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebType {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Other names of it.
    #[serde(default, deserialize_with = "value::names")]
    pub aliases: Vec<String>,
    /// One line for help.
    #[serde(default, deserialize_with = "value::line")]
    pub description: String,
    /// Where it runs.
    #[serde(default = "all_backends")]
    pub backends: Vec<BackendName>,
    #[serde(default)]
    needs: Vec<Need>,
    #[serde(default)]
    directory: Option<HomePath>,
    /// Where its server logs beside ~/error.log.
    #[serde(default)]
    log: Option<HomePath>,
    /// What it does with EXTRA.
    #[serde(default)]
    pub arguments: Arguments,
    #[serde(default)]
    command: CommandTemplate,
    #[serde(default)]
    configuration: Configuration,
    /// Its queue on the grid.
    #[serde(default = "default_queue", deserialize_with = "value::queue")]
    pub queue: String,
    /// Its image in Kubernetes, if not from the ConfigMap of images.
    #[serde(default, deserialize_with = "value::optional_image")]
    pub image: Option<String>,
    /// The runner's `--type` in its image; by default its name.
    #[serde(default, deserialize_with = "value::name")]
    pub runner_type: String,
    /// Its default limit of memory in Kubernetes.
    #[serde(default, deserialize_with = "value::optional_quantity")]
    pub memory: Option<String>,
    /// Its default limit of CPUs in Kubernetes.
    #[serde(default, deserialize_with = "value::optional_quantity")]
    pub cpu: Option<String>,
}

/// The configuration that is generated for the type's server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Configuration {
    #[default]
    None,
    Lighttpd,
    LighttpdPhp,
}

fn all_backends() -> Vec<BackendName> {
    BackendName::ALL.to_vec()
}

fn default_queue() -> String {
    "webgrid-generic".into()
}

impl WebType {
    /// Names a definition. The error says what does not fit together.
    pub(super) fn named(mut self, name: &str) -> Result<Self, String> {
        name.clone_into(&mut self.name);
        if self.runner_type.is_empty() {
            name.clone_into(&mut self.runner_type);
        }
        let is_own_command = self.arguments == Arguments::Command;
        if self.backends.is_empty() {
            return Err("empty backends, expected gridengine, kubernetes or both".into());
        }
        if is_own_command && !self.command.is_empty() {
            return Err("command with \"arguments: command\", expected one of them".into());
        }
        if !is_own_command && !self.command.has_program() {
            return Err("no command, expected a program and its words, or \"arguments: command\"".into());
        }
        let has_config = self.command.has(Placeholder::Config);
        match self.configuration {
            Configuration::None if has_config => Err("{config} without \"configuration\"".into()),
            Configuration::None => Ok(self),
            _ if !has_config => Err("configuration without {config} in the command".into()),
            _ => Ok(self),
        }
    }

    /// Whether this is a name of the type.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Its name and aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.name).chain(self.aliases.iter().map(|alias| &**alias))
    }

    /// Whether it runs there.
    pub fn runs_on(&self, backend: BackendName) -> bool {
        self.backends.contains(&backend)
    }

    /// Checks what the type needs in the home and on the command line.
    pub fn check_needs(&self, home: &Path, extra: &[impl AsRef<OsStr>]) -> Result<(), NeedError> {
        match (self.arguments, extra.first()) {
            (Arguments::Command, None) => return Err(NeedError::NoCommand(self.name.clone())),
            (Arguments::None, Some(first)) => {
                let (name, extra) = (self.name.clone(), first.as_ref().to_string_lossy().into_owned());
                return Err(NeedError::UnexpectedArgument { name, extra });
            }
            _ => {}
        }
        self.needs.iter().try_for_each(|need| need.check(&self.name, home))?;
        let directory = self.directory.as_ref().map(|directory| Need::AnyOf(vec![directory.to_directory()]));
        directory.map_or(Ok(()), |need| need.check(&self.name, home))
    }

    /// The command for one start of the web service. Reads the tool's part of the configuration.
    pub fn command(&self, invocation: &Invocation<'_>) -> Result<PreparedCommand, PrepareError> {
        let home = invocation.home;
        let mut words = self.command.words(home, |placeholder| invocation.value(placeholder));
        words.extend(invocation.extra.iter().cloned());
        let configuration = match self.configuration {
            Configuration::None => None,
            Configuration::Lighttpd => Some(lighttpd::configuration(invocation, false)?),
            Configuration::LighttpdPhp => Some(lighttpd::configuration(invocation, true)?),
        };
        let directory = self.directory.as_ref().map(|directory| directory.below(home));
        let configuration = configuration.map(|content| (invocation.config(), content));
        Ok(PreparedCommand { words, directory, configuration })
    }

    /// Where its server logs beside `~/error.log`.
    pub fn log(&self, home: &Path) -> Option<PathBuf> {
        self.log.as_ref().map(|log| log.below(home))
    }

    /// Whether a configuration is generated, which needs a place.
    pub fn has_configuration(&self) -> bool {
        self.configuration != Configuration::None
    }
}
