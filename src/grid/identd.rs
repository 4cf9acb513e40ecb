//! Client of a host's identd, which names the owner of a connection: RFC 1413.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::registry::address_towards;

/// Longest reply with its line end, in bytes: RFC 1413, section 6.
const MAX_REPLY_LEN: usize = 1000;
/// An identd at its connection limit (ten on Debian) closes without a reply. It is asked up to this often, with doubling pauses.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Time for an identd to close after its reply.
const LINGER: Duration = Duration::from_secs(1);

/// The ports of a connection, as sent to an identd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Port on the identd's host.
    pub client_port: u16,
    /// Port on this host.
    pub our_port: u16,
}

/// Why the owner of a connection is unknown.
#[derive(Debug, thiserror::Error)]
pub enum IdentError {
    /// Connecting, sending or receiving failed.
    #[error("{0} while asking identd")]
    Io(#[from] io::Error),
    /// No complete reply in time.
    #[error("no reply within {0:?} while asking identd")]
    Timeout(Duration),
    /// The connection ended within the line: a name might be cut short.
    #[error("identd sent an incomplete line, {0:?}")]
    Unfinished(String),
    /// Longer than RFC 1413 allows.
    #[error("identd sent more than {MAX_REPLY_LEN} bytes")]
    TooLong,
    /// Not a reply of RFC 1413.
    #[error("identd sent {0:?}, expected port , port : USERID : system : user")]
    Garbage(String),
    /// A reply about another connection.
    #[error("identd replied about other ports, {0:?}")]
    WrongPorts(String),
    /// An error reply, such as `NO-USER` or `HIDDEN-USER`.
    #[error("identd replied with error {0:?}")]
    Refused(String),
}

/// Parses the user in a complete reply. Ignores the operating system field.
///
/// # Errors
/// Every other reply, also one about another connection.
pub fn parse_ident_reply(reply: &[u8], query: Query) -> Result<&str, IdentError> {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..120).unwrap_or(bytes)).into_owned();
    let end = memchr::memchr(b'\n', reply).ok_or_else(|| IdentError::Unfinished(shown(reply)))?;
    if end >= MAX_REPLY_LEN {
        return Err(IdentError::TooLong);
    }
    let garbage = || IdentError::Garbage(shown(&reply[..end]));
    let line = std::str::from_utf8(&reply[..end]).map_err(|_| garbage())?;
    let mut fields = line.splitn(3, ':');
    let (Some(ports), Some(kind), Some(rest)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(garbage());
    };
    let (first, second) = ports.split_once(',').ok_or_else(garbage)?;
    let port = |text: &str| {
        let digits = text.trim_ascii();
        // Not `+80`, which `parse` would take.
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (Some(first), Some(second)) = (port(first), port(second)) else { return Err(garbage()) };
    if (first, second) != (query.client_port, query.our_port) {
        return Err(IdentError::WrongPorts(ports.trim_ascii().to_owned()));
    }
    match kind.trim_ascii() {
        "USERID" => {
            let (_, user) = rest.split_once(':').ok_or_else(garbage)?;
            Some(user.trim_ascii()).filter(|user| !user.is_empty()).ok_or_else(garbage)
        }
        "ERROR" => Err(IdentError::Refused(rest.trim_ascii().chars().take(120).collect())),
        _ => Err(garbage()),
    }
}

impl IdentError {
    /// Whether the identd closed the connection without a reply.
    fn is_closed_without_reply(&self) -> bool {
        match self {
            Self::Io(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            Self::Unfinished(line) => line.is_empty(),
            _ => false,
        }
    }
}

/// Asks the identd of `peer` who owns its connection to `local`. Asks from `local`'s address: an identd identifies the
/// connection by that address and both ports. Retries for some 0.6 s when the identd closes without a reply.
///
/// # Errors
/// Everything but a user's name within `deadline`.
pub async fn ask(
    peer: SocketAddr,
    local: SocketAddr,
    ident_port: u16,
    deadline: Duration,
) -> Result<String, IdentError> {
    let mut closed_early = None;
    let asked = timeout(deadline, async {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match ask_once(peer, local, ident_port).await {
                Err(error) if error.is_closed_without_reply() => closed_early = Some(error),
                outcome => return outcome,
            }
            sleep(pause).await;
            pause *= 2;
        }
        ask_once(peer, local, ident_port).await
    });
    let outcome = asked.await;
    outcome.unwrap_or_else(|_| Err(closed_early.unwrap_or(IdentError::Timeout(deadline))))
}

async fn ask_once(peer: SocketAddr, local: SocketAddr, ident_port: u16) -> Result<String, IdentError> {
    let query = Query { client_port: peer.port(), our_port: local.port() };
    let mut stream = connect(peer, local, ident_port).await?;
    stream.write_all(format!("{} , {}\r\n", query.client_port, query.our_port).as_bytes()).await?;
    let mut reply = Vec::with_capacity(MAX_REPLY_LEN);
    let mut rest = (&mut stream).take(MAX_REPLY_LEN as u64);
    while rest.read_buf(&mut reply).await? > 0 && !reply.contains(&b'\n') {}
    tokio::spawn(timeout(LINGER, wait_for_close(stream)));
    if reply.len() == MAX_REPLY_LEN && !reply.contains(&b'\n') {
        return Err(IdentError::TooLong);
    }
    parse_ident_reply(&reply, query).map(str::to_owned)
}

async fn connect(mut identd: SocketAddr, mut from: SocketAddr, ident_port: u16) -> io::Result<TcpStream> {
    identd.set_port(ident_port);
    // A bound port is taken for all destinations, so a flood of queries would leave none for nginx's connections. So this binds
    // only where the kernel would choose another address.
    if address_towards(identd.ip()).is_ok_and(|own| own == from.ip()) {
        return TcpStream::connect(identd).await;
    }
    from.set_port(0);
    let socket = if identd.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(from)?;
    socket.connect(identd).await
}

/// The side that closes first keeps the pair of ports in TIME_WAIT: that should be the identd, which always has the same port.
async fn wait_for_close(mut stream: TcpStream) {
    let mut bytes = [0; 64];
    let mut left = MAX_REPLY_LEN;
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        left = left.saturating_sub(read);
        if left == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUERY: Query = Query { client_port: 6193, our_port: 8282 };

    #[test]
    fn user_replies_are_parsed() {
        for (reply, user) in [
            ("6193, 8282 : USERID : UNIX : tools.hello\r\n", "tools.hello"),
            ("6193,8282:USERID:UNIX:tools.hello\n", "tools.hello"),
            (" 6193 , 8282 : USERID : UNIX , UTF-8 : tools.w\u{ee}ki \r\nmore", "tools.w\u{ee}ki"),
            ("6193 , 8282 : USERID : OTHER :a:b c\r\n", "a:b c"),
        ] {
            assert_eq!(parse_ident_reply(reply.as_bytes(), QUERY).unwrap(), user, "{reply:?}");
        }
    }

    #[test]
    fn other_replies_are_refused_with_a_reason() {
        let long = format!("6193 , 8282 : USERID : UNIX : {}\r\n", "a".repeat(MAX_REPLY_LEN));
        for (reply, want) in [
            (&b""[..], "incomplete line"),
            (b"6193 , 8282 : USERID : UNIX : tools.hel", "incomplete line"),
            (b"\r\n", "expected port"),
            (b"hello\r\n", "expected port"),
            (b"6193 8282 : USERID : UNIX : a\r\n", "expected port"),
            (b"+6193 , 8282 : USERID : UNIX : a\r\n", "expected port"),
            (b"71729 , 8282 : USERID : UNIX : a\r\n", "expected port"),
            (b"6193 , 8282 : USERID : UNIX\r\n", "expected port"),
            (b"6193 , 8282 : USERID : UNIX : \r\n", "expected port"),
            (b"6193 , 8282 : userid : UNIX : a\r\n", "expected port"),
            (b"6193 , 8282 : USERID : UNIX : \xff\r\n", "expected port"),
            (b"8282 , 6193 : USERID : UNIX : a\r\n", "other ports, \"8282 , 6193\""),
            (b"6194 , 8282 : USERID : UNIX : a\r\n", "other ports"),
            (b"6193 , 8282 : ERROR : NO-USER\r\n", "error \"NO-USER\""),
            (long.as_bytes(), "more than 1000"),
        ] {
            let error = parse_ident_reply(reply, QUERY).unwrap_err().to_string();
            assert!(error.contains(want), "{}: {error}", reply.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_or_a_user_without_line_end(reply in "(6193 ?, ?8282 ?: ?)?(USERID ?: ?UNIX ?: ?)?\\PC{0,30}\r?\n?") {
            if let Ok(user) = parse_ident_reply(reply.as_bytes(), QUERY) {
                prop_assert!(!user.is_empty() && !user.contains('\n'));
            }
        }
    }
}
