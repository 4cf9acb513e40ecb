//! What a program that the monitor starts finds in its environment: a list of what goes in, so that no secret of the
//! monitor's own can.

use std::fmt;

use tokio::process::Command;

/// What every program is given, as far as the monitor has it.
const BASE: [&str; 6] = ["PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL"];
/// Grid Engine's own: where its cell and its master are.
const GRID_PREFIX: &str = "SGE_";
/// What is the monitor's alone: its settings, and what systemd gives to one process.
const OWN_PREFIXES: [&str; 5] = ["URLPROXY_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "CREDENTIALS_DIRECTORY"];

/// The name of a variable that may be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableName(String);

impl VariableName {
    /// Checks it.
    ///
    /// # Errors
    /// No name of a variable, or one that is the monitor's alone.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name = text.bytes().all(is_inner) && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !is_name {
            return Err(format!("invalid name {text:?}, expected e.g. \"SGE_ROOT\""));
        }
        if OWN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(format!("{text} is webservicemonitor's alone, and is never handed on"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command of these words that is given [`BASE`] and `extra`, and nothing else; `None` without a word.
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

/// The same for what asks the grid, which is also given Grid Engine's own variables, and UTC as its time zone.
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
    fn names_are_names_and_no_secrets() {
        for text in ["SGE_ROOT", "_", "a1"] {
            assert_eq!(VariableName::parse(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "1A", "A=B", "A B", "Ä"] {
            assert!(VariableName::parse(text).is_err_and(|error| error.contains("expected e.g.")), "{text:?}");
        }
        for text in ["URLPROXY_REDIS", "NOTIFY_SOCKET", "WATCHDOG_PID", "LISTEN_FDS", "CREDENTIALS_DIRECTORY"] {
            assert!(VariableName::parse(text).is_err_and(|error| error.contains("never handed on")), "{text:?}");
        }
    }
}
