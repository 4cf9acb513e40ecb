//! Sends one command to one proxy, and reads the reply.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::active_proxy::Proxy;
use super::listening_socket::{NotServing, check_listening, check_reachable};
use crate::grid::protocol::{Command, Reply};
use crate::registry::address_towards;
use crate::route::Host;

/// The pattern of a service: all paths of the tool.
pub const ALL_PATHS: &str = ".*";
/// Time for a whole exchange: lookup, connection, command and reply. A proxy waits for identd and Redis.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest reply that is read, in bytes.
const MAX_ANSWER_LEN: u64 = 1 << 10;
/// Longest unexpected reply in a log line, in characters.
const SHOWN_CHARS: usize = 200;

/// Why a command was not carried out, as far as the client knows.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Connecting, sending or receiving failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No complete reply in time.
    #[error("no reply in time")]
    Timeout,
    /// The server to register does not listen.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// This host's address towards the proxy has changed.
    #[error("this host's address changed to {0}")]
    AddressChanged(IpAddr),
    /// The proxy does not know the command: it replied `fail` before the command was complete.
    #[error("unknown command")]
    UnknownCommand,
    /// A reply other than `ok`.
    #[error("reply {0:?}, expected ok")]
    Refused(String),
}

impl ExchangeError {
    /// Whether a retry is useless.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer == Reply::NoTool.as_str())
    }

    /// Whether the proxy may have carried out the command, or still may.
    pub fn may_have_succeeded(&self) -> bool {
        let refusals = [Reply::NoTool, Reply::IdentFailed];
        match self {
            Self::Refused(answer) => !refusals.iter().any(|reply| answer == reply.as_str()),
            Self::UnknownCommand => false,
            _ => true,
        }
    }

    /// Whether the proxy closed the connection without a reply.
    pub fn is_closed_without_reply(&self) -> bool {
        match self {
            Self::Refused(answer) => answer.is_empty(),
            Self::Io(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            _ => false,
        }
    }

    /// Whether the proxy replied `fail` to a complete command.
    pub fn is_fail(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer == Reply::Fail.as_str())
    }
}

/// The address of this host that a command may be sent from.
#[derive(Clone, Copy, Debug)]
pub enum SourceAddress {
    /// Any address.
    Any,
    /// An address where connections to the port reach a server of the user, and of no other user.
    Served { port: u16, uid: u32 },
    /// This address, if such a server still listens there.
    StillServed { address: IpAddr, port: u16, uid: u32 },
}

impl SourceAddress {
    async fn check(self, own: IpAddr) -> Result<(), ExchangeError> {
        match self {
            Self::Any => Ok(()),
            Self::Served { port, uid } => Ok(check_reachable(port, uid, own).await?),
            Self::StillServed { address, .. } if address != own => Err(ExchangeError::AddressChanged(own)),
            Self::StillServed { port, uid, .. } => Ok(check_listening(port, uid, &[own])?),
        }
    }
}

/// A connection to a proxy, for one command.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    own: IpAddr,
    deadline: Instant,
}

impl Connection {
    /// Connects to the first of the proxy's addresses that accepts, from an address that `source` allows.
    ///
    /// # Errors
    /// [`ExchangeError::AddressChanged`] if any address gave it, else the error of the last address; the timeout.
    pub async fn open(proxy: &Proxy, by: Instant, source: SourceAddress) -> Result<Self, ExchangeError> {
        let deadline = by.min(Instant::now() + EXCHANGE_TIMEOUT);
        let addresses = timeout_at(deadline, addresses(proxy)).await.map_err(|_| ExchangeError::Timeout)??;
        let mut failure = ExchangeError::Io(io::Error::new(io::ErrorKind::NotFound, "no address"));
        for (index, address) in addresses.iter().enumerate() {
            // An address that does not answer leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            let outcome = timeout_at(Instant::now() + share, TcpStream::connect(address)).await;
            let connected = outcome.map_err(|_| ExchangeError::Timeout).and_then(|outcome| Ok(outcome?));
            let checked = async {
                let stream = connected?;
                let own = stream.local_addr()?.ip().to_canonical();
                source.check(own).await.map(|()| (stream, own))
            };
            match checked.await {
                Ok((stream, own)) => return Ok(Self { stream, own, deadline }),
                Err(_) if matches!(failure, ExchangeError::AddressChanged(_)) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// This host's address, as the proxy sees it.
    pub fn own_address(&self) -> IpAddr {
        self.own
    }

    /// Sends the command and reads the reply.
    ///
    /// # Errors
    /// Every reply but `ok`; the timeout.
    pub async fn send(self, command: Command<'_>) -> Result<(), ExchangeError> {
        self.exchange(command, None).await
    }

    /// The same, with a pause after the first line: a proxy that does not know the command replies then, one that knows it
    /// waits for the rest. This distinguishes `fail` to an unknown command from `fail` because of Redis.
    ///
    /// # Errors
    /// [`ExchangeError::UnknownCommand`] only if the proxy cannot have carried out the command.
    pub async fn send_probing(self, command: Command<'_>, pause: Duration) -> Result<(), ExchangeError> {
        self.exchange(command, Some(pause)).await
    }

    async fn exchange(self, command: Command<'_>, pause: Option<Duration>) -> Result<(), ExchangeError> {
        let (mut stream, deadline) = (self.stream, self.deadline);
        let text = command.to_string();
        let exchange = async {
            let first_line = text.find('\n').map_or(text.len(), |end| end + 1);
            let (first, rest) = text.as_bytes().split_at(if pause.is_some() { first_line } else { 0 });
            let mut early = [0];
            if let Some(pause) = pause {
                stream.write_all(first).await?;
                if let Ok(peeked) = timeout_at(Instant::now() + pause, stream.peek(&mut early)).await {
                    peeked?;
                    return Ok::<_, io::Error>((read_answer(stream).await?, true));
                }
            }
            stream.write_all(rest).await?;
            Ok((read_answer(stream).await?, false))
        };
        let (answer, is_early) = timeout_at(deadline, exchange).await.map_err(|_| ExchangeError::Timeout)??;
        // The old listener replies twice.
        if answer == Reply::Ok.as_str() || answer == Reply::Ok.as_str().repeat(2) {
            return Ok(());
        }
        if is_early && answer == Reply::Fail.as_str() {
            return Err(ExchangeError::UnknownCommand);
        }
        Err(ExchangeError::Refused(answer.chars().take(SHOWN_CHARS).collect()))
    }
}

async fn read_answer(stream: TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_LEN).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// This host's addresses for connections to the proxy, as far as the kernel knows them without connecting.
pub async fn own_addresses(proxy: &Proxy) -> Vec<IpAddr> {
    let deadline = Instant::now() + EXCHANGE_TIMEOUT;
    let Ok(Ok(addresses)) = timeout_at(deadline, addresses(proxy)).await else { return Vec::new() };
    addresses.into_iter().filter_map(|proxy| Some(address_towards(proxy.ip()).ok()?.to_canonical())).collect()
}

async fn addresses(proxy: &Proxy) -> io::Result<Vec<SocketAddr>> {
    let address = |ip| Ok(vec![SocketAddr::new(ip, proxy.port)]);
    match &proxy.host {
        Host::V4(ip) => address((*ip).into()),
        Host::V6(ip) => address((*ip).into()),
        Host::Name(name) => Ok(lookup_host((&**name, proxy.port)).await?.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// The result of a reply, and the command that was received.
    async fn exchanged(answer: impl AsRef<[u8]>) -> (Result<(), ExchangeError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
        let client = async {
            let connection = Connection::open(&proxy, Instant::now() + EXCHANGE_TIMEOUT, SourceAddress::Any).await?;
            assert_eq!(connection.own_address(), IpAddr::from([127, 0, 0, 1]));
            connection.send(Command::Unregister { pattern: ".*" }).await
        };
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 14];
            stream.read_exact(&mut bytes).await.unwrap();
            // The client may close before the end.
            let _ = stream.write_all(answer.as_ref()).await;
            drop(stream);
            String::from_utf8(bytes).unwrap()
        };
        tokio::join!(client, server)
    }

    #[tokio::test]
    async fn replies_have_their_meaning() {
        for (answer, is_final, may_have_succeeded) in [
            ("fail", false, true),
            ("", false, true),
            ("ok\n", false, true),
            ("okokok", false, true),
            (Reply::IdentFailed.as_str(), false, false),
            (Reply::NoTool.as_str(), true, false),
        ] {
            let (outcome, bytes) = exchanged(answer).await;
            assert_eq!(bytes, "unregister\n.*\n");
            let error = outcome.unwrap_err();
            assert_eq!((error.is_final(), error.may_have_succeeded()), (is_final, may_have_succeeded), "{answer:?}");
            assert_eq!(error.to_string(), format!("reply {answer:?}, expected ok"));
        }
        for answer in ["ok", "okok"] {
            assert!(exchanged(answer).await.0.is_ok(), "{answer}");
        }
    }

    #[tokio::test]
    async fn early_fail_means_unknown_command() {
        let url = "http://10.0.0.1:80";
        for (is_known, answer) in [(false, "fail"), (true, "fail"), (true, "ok"), (false, Reply::IdentFailed.as_str())]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
            // Without a reply after the first line, the rest would not come before the deadline.
            let pause = if is_known { Duration::from_millis(20) } else { EXCHANGE_TIMEOUT * 2 };
            let client = async {
                let connection =
                    Connection::open(&proxy, Instant::now() + EXCHANGE_TIMEOUT, SourceAddress::Any).await.unwrap();
                connection.send_probing(Command::UnregisterUrl { pattern: ".*", url }, pause).await
            };
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; if is_known { 36 } else { 14 }];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8(bytes).unwrap()
            };
            let (outcome, received) = tokio::join!(client, server);
            assert_eq!(received, if is_known { "unregisterUrl\n.*\nhttp://10.0.0.1:80\n" } else { "unregisterUrl\n" });
            match answer {
                "ok" => assert!(outcome.is_ok(), "{outcome:?}"),
                "fail" if is_known => assert!(outcome.unwrap_err().is_fail()),
                "fail" => assert!(matches!(outcome, Err(ExchangeError::UnknownCommand)), "{outcome:?}"),
                _ => assert_eq!(outcome.unwrap_err().to_string(), format!("reply {answer:?}, expected ok")),
            }
        }
    }

    #[tokio::test]
    async fn long_replies_are_truncated() {
        let (outcome, _) = exchanged("a".repeat(1 << 20)).await;
        assert_eq!(outcome.unwrap_err().to_string().len(), "reply \"\", expected ok".len() + SHOWN_CHARS);
        let (outcome, _) = exchanged(b"\xff\x1b").await;
        assert_eq!(outcome.unwrap_err().to_string(), "reply \"\u{fffd}\\u{1b}\", expected ok");
    }

    #[tokio::test]
    async fn silent_proxy_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
        let by = Instant::now() + Duration::from_millis(200);
        let connection = Connection::open(&proxy, by, SourceAddress::Any).await.unwrap();
        let outcome = connection.send(Command::Unregister { pattern: ".*" }).await;
        assert!(matches!(outcome, Err(ExchangeError::Timeout)), "{outcome:?}");
    }

    #[tokio::test]
    async fn nothing_is_sent_from_an_address_without_a_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
        // Nothing listens on port 0.
        let by = Instant::now() + EXCHANGE_TIMEOUT;
        let outcome = Connection::open(&proxy, by, SourceAddress::Served { port: 0, uid: 0 }).await;
        assert!(matches!(outcome, Err(ExchangeError::NotServing(NotServing::Nothing(0)))), "{outcome:?}");
        let elsewhere = SourceAddress::StillServed { address: [127, 0, 0, 2].into(), port: 0, uid: 0 };
        let outcome = Connection::open(&proxy, by, elsewhere).await;
        assert!(matches!(outcome, Err(ExchangeError::AddressChanged(own)) if own.is_loopback()), "{outcome:?}");
        assert_eq!(own_addresses(&proxy).await, [IpAddr::from([127, 0, 0, 1])]);
    }
}
