//! The environment of programs that the monitor starts: an allow list, so that no secret of the monitor leaks.

use std::fmt;

use tokio::process::Command;

/// Variables that every program inherits.
const BASE: [&str; 6] = ["PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL"];
/// Grid Engine's variables: its cell and its master.
const GRID_PREFIX: &str = "SGE_";
/// Variables that are never passed on: the monitor's settings, and what systemd gives to one process.
const OWN_PREFIXES: [&str; 5] = ["URLPROXY_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "CREDENTIALS_DIRECTORY"];

/// The name of a variable that may be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableName(String);

impl VariableName {
    /// Reads a name.
    ///
    /// # Errors
    /// The text is not a variable name, or a name that is never passed on.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name = text.bytes().all(is_inner) && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !is_name {
            return Err(format!("invalid name {text:?}, expected e.g. \"SGE_ROOT\""));
        }
        if OWN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(format!("{text} is reserved for webservicemonitor and never passed on"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command of these words, with only [`BASE`] and `extra` in its environment; `None` without words.
pub fn start_command(words: &[String], extra: &[VariableName]) -> Option<Command> {
    let (program, args) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(args).env_clear();
    for name in BASE.into_iter().chain(extra.iter().map(|name| name.0.as_str())) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Some(command)
}

/// Like [`start_command`] for qstat: with Grid Engine's variables, and UTC as the time zone.
pub fn grid_command(words: &[String]) -> Option<Command> {
    let mut command = start_command(words, &[])?;
    command.envs(std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(GRID_PREFIX.as_bytes())));
    command.env("TZ", "UTC");
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_and_reserved_names_are_refused() {
        for text in ["SGE_ROOT", "_", "a1"] {
            assert_eq!(VariableName::parse(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "1A", "A=B", "A B", "Ä"] {
            assert!(VariableName::parse(text).is_err_and(|error| error.contains("expected e.g.")), "{text:?}");
        }
        for text in ["URLPROXY_REDIS", "NOTIFY_SOCKET", "WATCHDOG_PID", "LISTEN_FDS", "CREDENTIALS_DIRECTORY"] {
            assert!(VariableName::parse(text).is_err_and(|error| error.contains("never passed on")), "{text:?}");
        }
    }
}
