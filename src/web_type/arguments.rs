//! What a type does with the arguments that follow it on the command line.

use serde::Deserialize;

/// The use of EXTRA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arguments {
    /// There must be none.
    #[default]
    None,
    /// They are the command; at least one is needed.
    Command,
    /// They follow the type's command.
    Append,
}
