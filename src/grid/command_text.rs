//! Serializes commands, as `parse_command` reads them.

use std::fmt;

use super::protocol::Command;

/// The bytes of the protocol. Callers pass no text with a line end: that would be another command.
impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n", self.name(), self.pattern())?;
        self.url().map_or(Ok(()), |url| writeln!(f, "{url}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::parse_command;

    #[test]
    fn commands_survive_a_round_trip() {
        let url = "http://10.0.0.1:80";
        for (command, bytes) in [
            (Command::Register { pattern: ".*", url, canonical: false }, "register\n.*\nhttp://10.0.0.1:80\n"),
            (Command::Register { pattern: ".*", url, canonical: true }, "registerCanonical\n.*\nhttp://10.0.0.1:80\n"),
            (Command::Renew { pattern: ".*", url, canonical: false }, "renew\n.*\nhttp://10.0.0.1:80\n"),
            (Command::Renew { pattern: ".*", url, canonical: true }, "renewCanonical\n.*\nhttp://10.0.0.1:80\n"),
            (Command::Unregister { pattern: ".*" }, "unregister\n.*\n"),
            (Command::UnregisterUrl { pattern: ".*", url }, "unregisterUrl\n.*\nhttp://10.0.0.1:80\n"),
        ] {
            assert_eq!(command.to_string(), bytes);
            assert_eq!(parse_command(bytes.as_bytes()), Ok(Some(command)), "{bytes:?}");
        }
    }
}
