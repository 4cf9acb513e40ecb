//! Commands as they are sent: the other side of `parse_command`.

use std::fmt;

use super::protocol::Command;

/// The bytes of the protocol. Texts with a line end in them would be another command: callers have none.
impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { pattern, url, canonical: false } => write!(f, "register\n{pattern}\n{url}\n"),
            Self::Register { pattern, url, canonical: true } => write!(f, "registerCanonical\n{pattern}\n{url}\n"),
            Self::Unregister { pattern } => write!(f, "unregister\n{pattern}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::parse_command;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let url = "http://10.0.0.1:80";
        for (command, bytes) in [
            (Command::Register { pattern: ".*", url, canonical: false }, "register\n.*\nhttp://10.0.0.1:80\n"),
            (Command::Register { pattern: ".*", url, canonical: true }, "registerCanonical\n.*\nhttp://10.0.0.1:80\n"),
            (Command::Unregister { pattern: ".*" }, "unregister\n.*\n"),
        ] {
            assert_eq!(command.to_string(), bytes);
            assert_eq!(parse_command(bytes.as_bytes()), Ok(Some(command)), "{bytes:?}");
        }
    }
}
