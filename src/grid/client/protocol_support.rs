//! Which commands a proxy understands, found out by asking: `renew` and `unregisterUrl` are unknown to old listeners.

use std::time::Duration;

use super::exchange::{Connection, ExchangeError};
use crate::grid::protocol::Command;

/// What is known of one proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolSupport {
    /// Nothing.
    #[default]
    Unknown,
    /// It carried out a new command.
    Current,
    /// It answered `fail` before a new command was complete.
    Legacy,
    /// It closed without a word before a new command was complete, as a new one does with who pauses when many others come. The
    /// next command is sent at once.
    Impatient,
}

impl ProtocolSupport {
    /// Asks a command that old listeners do not know, and learns from the answer. Unless the proxy is known to understand
    /// it, the first line is sent alone, and the rest after `pause`; but not twice in a row to one that did not wait for that.
    ///
    /// # Errors
    /// [`ExchangeError::UnknownCommand`] if the listener is an old one for certain, never because Redis is down. All others
    /// as of [`Connection::ask`].
    pub async fn send(
        &mut self,
        connection: Connection,
        command: Command<'_>,
        pause: Duration,
    ) -> Result<(), ExchangeError> {
        let outcome = match self {
            Self::Current | Self::Impatient => connection.send(command).await,
            Self::Unknown | Self::Legacy => connection.send_probing(command, pause).await,
        };
        match (&outcome, &self) {
            (Ok(()), _) => *self = Self::Current,
            (Err(ExchangeError::UnknownCommand), _) => *self = Self::Legacy,
            (Err(_), Self::Impatient) => *self = Self::Unknown,
            (Err(error), Self::Unknown | Self::Legacy) if error.is_closed_without_reply() => *self = Self::Impatient,
            (Err(_), _) => {}
        }
        outcome
    }

    /// The listener may have been replaced by an old one: it is not taken to be new until it shows that it is.
    pub fn doubt(&mut self) {
        *self = Self::Unknown;
    }
}
