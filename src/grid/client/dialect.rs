//! Which commands a proxy understands, found out by asking: `renew` and `unregisterUrl` are unknown to old listeners.

use std::time::Duration;

use super::exchange::{Connection, ExchangeError};
use crate::grid::protocol::Command;

/// What is known of one proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing.
    #[default]
    Unknown,
    /// It carried out a new command.
    New,
    /// It answered `fail` before a new command was complete.
    Old,
    /// It closed without a word before a new command was complete, as a new one does with who pauses when many others come. The
    /// next command is sent at once.
    Hurried,
}

impl Dialect {
    /// Asks a command that old listeners do not know, and learns from the answer. Unless the proxy is known to understand
    /// it, the first line is sent alone, and the rest after `pause`; but not twice in a row to one that did not wait for that.
    ///
    /// # Errors
    /// [`ExchangeError::UnknownCommand`] if the listener is an old one for certain, never because Redis is down. All others
    /// as of [`Connection::ask`].
    pub async fn ask(
        &mut self,
        connection: Connection,
        command: Command<'_>,
        pause: Duration,
    ) -> Result<(), ExchangeError> {
        let outcome = match self {
            Self::New | Self::Hurried => connection.ask(command).await,
            Self::Unknown | Self::Old => connection.ask_if_known(command, pause).await,
        };
        match (&outcome, &self) {
            (Ok(()), _) => *self = Self::New,
            (Err(ExchangeError::UnknownCommand), _) => *self = Self::Old,
            (Err(_), Self::Hurried) => *self = Self::Unknown,
            (Err(error), Self::Unknown | Self::Old) if error.is_silence() => *self = Self::Hurried,
            (Err(_), _) => {}
        }
        outcome
    }

    /// The listener may have been replaced by an old one: it is not taken to be new until it shows that it is.
    pub fn doubt(&mut self) {
        *self = Self::Unknown;
    }
}
