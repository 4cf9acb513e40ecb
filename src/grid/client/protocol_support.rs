//! Learns which commands a proxy supports: old listeners do not know `renew` and `unregisterUrl`.

use std::time::Duration;

use super::exchange::{Connection, ExchangeError};
use crate::grid::protocol::Command;

/// What is known about one proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolSupport {
    /// Nothing.
    #[default]
    Unknown,
    /// It has carried out a new command.
    Current,
    /// It has replied `fail` before a new command was complete.
    Legacy,
    /// It has closed without a reply before a new command was complete, as a busy new one does with clients that pause. The next
    /// command is sent without a pause.
    Impatient,
}

impl ProtocolSupport {
    /// Sends a command that old listeners do not know, and learns from the reply. Unless the proxy is known to support it,
    /// sends the first line alone and the rest after `pause`; but not twice in a row to a proxy that did not wait.
    ///
    /// # Errors
    /// [`ExchangeError::UnknownCommand`] only if the listener is certainly old, never because Redis is down. All others as of
    /// [`Connection::send`].
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

    /// Forgets what is known: an old listener may have replaced a new one.
    pub fn reset(&mut self) {
        *self = Self::Unknown;
    }
}
