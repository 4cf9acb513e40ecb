//! The line protocol: commands and the four replies. Old file: `proxylistener.py`.

/// Longest line in bytes, without its end.
pub const MAX_LINE_LEN: usize = 4 << 10;
/// Lines of the longest command.
const MAX_LINES: usize = 3;
/// Longest command in bytes.
pub const MAX_COMMAND_LEN: usize = MAX_LINES * (MAX_LINE_LEN + 1);

/// A client's command. White space around lines is stripped, as in the old stack; so `\r\n` ends a line too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `register`, or `registerCanonical`: routes the pattern's requests to the URL.
    Register {
        /// Unchecked.
        pattern: &'a str,
        /// Unchecked.
        url: &'a str,
        /// Whether clients are redirected to the tool's own host.
        canonical: bool,
    },
    /// `renew`, or `renewCanonical`: the same, but only if the pattern has no route or this one.
    Renew {
        /// Unchecked.
        pattern: &'a str,
        /// Unchecked.
        url: &'a str,
        /// Whether clients are redirected to the tool's own host.
        canonical: bool,
    },
    /// `unregister`: removes the route that the client's host registered.
    Unregister {
        /// Unchecked.
        pattern: &'a str,
    },
    /// `unregisterUrl`: removes the route if it leads to the URL.
    UnregisterUrl {
        /// Unchecked.
        pattern: &'a str,
        /// Unchecked.
        url: &'a str,
    },
}

impl<'a> Command<'a> {
    /// The first line of a command.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Register { canonical: false, .. } => "register",
            Self::Register { canonical: true, .. } => "registerCanonical",
            Self::Renew { canonical: false, .. } => "renew",
            Self::Renew { canonical: true, .. } => "renewCanonical",
            Self::Unregister { .. } => "unregister",
            Self::UnregisterUrl { .. } => "unregisterUrl",
        }
    }

    /// The second line.
    pub fn pattern(&self) -> &'a str {
        match *self {
            Self::Register { pattern, .. }
            | Self::Renew { pattern, .. }
            | Self::Unregister { pattern }
            | Self::UnregisterUrl { pattern, .. } => pattern,
        }
    }

    /// The third line, of commands that have one.
    pub fn url(&self) -> Option<&'a str> {
        match *self {
            Self::Register { url, .. } | Self::Renew { url, .. } | Self::UnregisterUrl { url, .. } => Some(url),
            Self::Unregister { .. } => None,
        }
    }
}

/// Why bytes cannot become a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The first line names no command.
    #[error(
        "unknown command {0:?}, expected register, registerCanonical, renew, renewCanonical, unregister or unregisterUrl"
    )]
    UnknownCommand(String),
    /// Longer than `MAX_LINE_LEN`.
    #[error("line {0} has more than {MAX_LINE_LEN} bytes")]
    LineTooLong(usize),
    /// A NUL byte.
    #[error("line {0} has a NUL byte")]
    Nul(usize),
    /// Not UTF-8.
    #[error("line {0} is not UTF-8")]
    NotUtf8(usize),
}

/// The reply to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Redis has committed it.
    Ok,
    /// It was refused, or Redis has not committed it.
    Fail,
    /// The client's identd named no user.
    IdentFailed,
    /// The user is not a tool account.
    NoTool,
}

impl Reply {
    /// The bytes on the wire, without a line end.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::IdentFailed => "Identd authentication failed. Please contact an administrator",
            Self::NoTool => "This service available only to tool accounts",
        }
    }
}

/// Parses the command at the start of `received`; `None` while it is incomplete. Ignores what follows a command.
///
/// # Errors
/// As soon as no further byte can complete a command.
pub fn parse_command(received: &[u8]) -> Result<Option<Command<'_>>, ProtocolError> {
    let mut rest = received;
    let Some(name) = next_line(&mut rest, 1)? else { return Ok(None) };
    if !["register", "registerCanonical", "renew", "renewCanonical", "unregister", "unregisterUrl"].contains(&name) {
        return Err(ProtocolError::UnknownCommand(name.chars().take(120).collect()));
    }
    let Some(pattern) = next_line(&mut rest, 2)? else { return Ok(None) };
    if name == "unregister" {
        return Ok(Some(Command::Unregister { pattern }));
    }
    let Some(url) = next_line(&mut rest, 3)? else { return Ok(None) };
    Ok(Some(match name {
        "unregisterUrl" => Command::UnregisterUrl { pattern, url },
        "renew" | "renewCanonical" => Command::Renew { pattern, url, canonical: name == "renewCanonical" },
        _ => Command::Register { pattern, url, canonical: name == "registerCanonical" },
    }))
}

/// Ends an unfinished last line at the end of the connection, as the old stack did. Adds no empty line.
pub fn end_last_line(received: &mut Vec<u8>) {
    if received.last().is_some_and(|&last| last != b'\n') {
        received.push(b'\n');
    }
}

fn next_line<'a>(rest: &mut &'a [u8], number: usize) -> Result<Option<&'a str>, ProtocolError> {
    let end = memchr::memchr(b'\n', rest);
    let line = &rest[..end.unwrap_or(rest.len())];
    if line.iter().take(MAX_LINE_LEN).any(|&byte| byte == 0) {
        return Err(ProtocolError::Nul(number));
    }
    if line.len() > MAX_LINE_LEN {
        return Err(ProtocolError::LineTooLong(number));
    }
    let Some(end) = end else { return Ok(None) };
    *rest = &rest[end + 1..];
    std::str::from_utf8(line).map(|line| Some(line.trim_ascii())).map_err(|_| ProtocolError::NotUtf8(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_are_parsed() {
        let register = |canonical| Command::Register { pattern: ".*", url: "http://10.0.0.1:80", canonical };
        let renew = |canonical| Command::Renew { pattern: ".*", url: "http://10.0.0.1:80", canonical };
        for (bytes, command) in [
            ("register\n.*\nhttp://10.0.0.1:80\n", register(false)),
            ("register\r\n.*\r\n http://10.0.0.1:80\t\r\nmore\0", register(false)),
            ("registerCanonical\n.*\nhttp://10.0.0.1:80\n", register(true)),
            ("renew\n.*\nhttp://10.0.0.1:80\n", renew(false)),
            ("renewCanonical\n.*\nhttp://10.0.0.1:80\n", renew(true)),
            ("unregister\n/a b\n", Command::Unregister { pattern: "/a b" }),
            ("unregisterUrl\n.*\nhttp://a\n", Command::UnregisterUrl { pattern: ".*", url: "http://a" }),
            ("unregister\n\n", Command::Unregister { pattern: "" }),
        ] {
            assert_eq!(parse_command(bytes.as_bytes()), Ok(Some(command)), "{bytes:?}");
            let needed = bytes.find("more").unwrap_or(bytes.len());
            assert_eq!(parse_command(&bytes.as_bytes()[..needed - 1]), Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn end_of_connection_ends_the_last_line_and_begins_none() {
        let ended = |bytes: &str| {
            let mut received = bytes.as_bytes().to_vec();
            end_last_line(&mut received);
            parse_command(&received).map(|command| command.map(|command| command.to_string()))
        };
        for bytes in ["register\n.*\nhttp://a:80", "renew\n.*\nhttp://a:80", "unregister\n.*", "unregister\n.*\n"] {
            let whole = format!("{}\n", bytes.trim_end());
            assert_eq!(ended(bytes), Ok(Some(whole)), "{bytes:?}");
        }
        for bytes in
            ["", "register", "register\n.*", "register\n.*\n", "unregister", "unregister\n", "unregisterUrl\n.*\n"]
        {
            assert_eq!(ended(bytes), Ok(None), "{bytes:?}");
        }
        assert_eq!(ended("list"), Err(ProtocolError::UnknownCommand("list".into())));
    }

    #[test]
    fn invalid_commands_are_refused_at_once() {
        use ProtocolError::*;
        for (bytes, error) in [
            (&b"REGISTER\n"[..], UnknownCommand("REGISTER".into())),
            (b"\n", UnknownCommand(String::new())),
            (b"reg\0", Nul(1)),
            (b"register\n.*\nhttp\0", Nul(3)),
            (b"unregister\n\xff\n", NotUtf8(2)),
        ] {
            assert_eq!(parse_command(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn line_length_is_limited() {
        let longest = "a".repeat(MAX_LINE_LEN);
        let command = format!("unregister\n{longest}\n");
        assert_eq!(parse_command(command.as_bytes()), Ok(Some(Command::Unregister { pattern: &longest })));
        let command = format!("unregister\n{longest}a");
        assert_eq!(parse_command(command.as_bytes()), Err(ProtocolError::LineTooLong(2)));
    }

    proptest! {
        #[test]
        fn split_input_gives_the_same_result(bytes in "((register|renew)(Canonical)?|unregister(Url)?|.{0,3})\n.{0,9}\n?\\PC{0,9}\n?\0?") {
            let whole = parse_command(bytes.as_bytes());
            let first = (0..=bytes.len()).map(|len| parse_command(&bytes.as_bytes()[..len])).find(|r| *r != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        }
    }
}
