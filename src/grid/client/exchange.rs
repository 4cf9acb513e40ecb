//! One command to one proxy, and its answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::active_proxy::Proxy;
use super::socket::Unserved;
use crate::grid::protocol::{Command, Reply};
use crate::registry::address_towards;
use crate::route::Host;

/// For everything: finding the proxy, connecting, asking, being answered. A proxy waits for identd and Redis.
pub const EXCHANGE: Duration = Duration::from_secs(10);
/// Nothing longer is an answer.
const MAX_ANSWER_LEN: u64 = 1 << 10;
/// Characters of an unknown answer that a line of the log shows.
const SHOWN_CHARS: usize = 200;

/// Why a command was not carried out, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection, or a broken one.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No whole answer in time.
    #[error("no answer in time")]
    Timeout,
    /// A server of ours is to be registered, and there is none.
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// The proxy will not: one of its replies, or anything else but `ok`.
    #[error("answered {0:?}")]
    Refused(String),
}

impl ExchangeError {
    /// Whether the answer will be the same for ever.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer == Reply::NoTool.as_str())
    }

    /// Whether the command may have been carried out all the same, or be yet.
    pub fn leaves_doubt(&self) -> bool {
        let refusals = [Reply::NoTool, Reply::IdentFailed];
        !matches!(self, Self::Refused(answer) if refusals.iter().any(|reply| answer == reply.as_str()))
    }
}

/// A connection on which nothing was sent yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    own: IpAddr,
    deadline: Instant,
}

impl Connection {
    /// Connects to the first of the proxy's addresses that takes it, from an address of ours that `check` agrees to.
    ///
    /// # Errors
    /// What went wrong with the last of its addresses; the deadline.
    pub async fn open(
        proxy: &Proxy,
        by: Instant,
        check: impl Fn(IpAddr) -> Result<(), ExchangeError>,
    ) -> Result<Self, ExchangeError> {
        let deadline = by.min(Instant::now() + EXCHANGE);
        let addresses = timeout_at(deadline, addresses(proxy)).await.map_err(|_| ExchangeError::Timeout)??;
        let mut failure = ExchangeError::Io(io::Error::new(io::ErrorKind::NotFound, "no address"));
        for (index, address) in addresses.iter().enumerate() {
            // One that does not answer leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            let outcome = timeout_at(Instant::now() + share, TcpStream::connect(address)).await;
            let connected = outcome.map_err(|_| ExchangeError::Timeout).and_then(|outcome| Ok(outcome?));
            let checked = connected.and_then(|stream| {
                let own = stream.local_addr()?.ip().to_canonical();
                check(own).map(|()| (stream, own))
            });
            match checked {
                Ok((stream, own)) => return Ok(Self { stream, own, deadline }),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// This host's address, as the proxy sees it.
    pub fn own_address(&self) -> IpAddr {
        self.own
    }

    /// Sends the command and reads the answer to its end.
    ///
    /// # Errors
    /// Every answer but `ok`; none in time.
    pub async fn ask(mut self, command: Command<'_>) -> Result<(), ExchangeError> {
        let exchange = async {
            self.stream.write_all(command.to_string().as_bytes()).await?;
            let mut answer = Vec::new();
            self.stream.take(MAX_ANSWER_LEN).read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = timeout_at(self.deadline, exchange).await.map_err(|_| ExchangeError::Timeout)??;
        let answer = String::from_utf8_lossy(&answer);
        // The old listener says it twice.
        if answer == Reply::Ok.as_str() || answer == Reply::Ok.as_str().repeat(2) {
            return Ok(());
        }
        Err(ExchangeError::Refused(answer.chars().take(SHOWN_CHARS).collect()))
    }
}

/// This host's addresses for connections to the proxy, as far as they can be told without one.
pub async fn own_addresses(proxy: &Proxy) -> Vec<IpAddr> {
    let deadline = Instant::now() + EXCHANGE;
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

    /// What comes of an answer, and what was asked.
    async fn asked(answer: impl AsRef<[u8]>) -> (Result<(), ExchangeError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
        let client = async {
            let connection = Connection::open(&proxy, Instant::now() + EXCHANGE, |_| Ok(())).await?;
            assert_eq!(connection.own_address(), IpAddr::from([127, 0, 0, 1]));
            connection.ask(Command::Unregister { pattern: ".*" }).await
        };
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 14];
            stream.read_exact(&mut bytes).await.unwrap();
            // The client may have heard enough before the end.
            let _ = stream.write_all(answer.as_ref()).await;
            drop(stream);
            String::from_utf8(bytes).unwrap()
        };
        tokio::join!(client, server)
    }

    #[tokio::test]
    async fn each_answer_has_its_meaning() {
        for (answer, is_final, leaves_doubt) in [
            ("fail", false, true),
            ("", false, true),
            ("ok\n", false, true),
            ("okokok", false, true),
            (Reply::IdentFailed.as_str(), false, false),
            (Reply::NoTool.as_str(), true, false),
        ] {
            let (outcome, bytes) = asked(answer).await;
            assert_eq!(bytes, "unregister\n.*\n");
            let error = outcome.unwrap_err();
            assert_eq!((error.is_final(), error.leaves_doubt()), (is_final, leaves_doubt), "{answer:?}");
            assert_eq!(error.to_string(), format!("answered {answer:?}"));
        }
        for answer in ["ok", "okok"] {
            assert!(asked(answer).await.0.is_ok(), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let (outcome, _) = asked("a".repeat(1 << 20)).await;
        assert_eq!(outcome.unwrap_err().to_string().len(), "answered \"\"".len() + SHOWN_CHARS);
        let (outcome, _) = asked(b"\xff\x1b").await;
        assert_eq!(outcome.unwrap_err().to_string(), "answered \"\u{fffd}\\u{1b}\"");
    }

    #[tokio::test]
    async fn a_silent_proxy_is_not_waited_for_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
        let connection =
            Connection::open(&proxy, Instant::now() + Duration::from_millis(200), |_| Ok(())).await.unwrap();
        let outcome = connection.ask(Command::Unregister { pattern: ".*" }).await;
        assert!(matches!(outcome, Err(ExchangeError::Timeout)), "{outcome:?}");
    }

    #[tokio::test]
    async fn nothing_is_sent_from_an_address_that_is_not_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { host: Host::V4([127, 0, 0, 1].into()), port: listener.local_addr().unwrap().port() };
        let outcome = Connection::open(&proxy, Instant::now() + EXCHANGE, |_| Err(Unserved::Nothing(80).into())).await;
        assert!(matches!(outcome, Err(ExchangeError::Unserved(Unserved::Nothing(80)))), "{outcome:?}");
        assert_eq!(own_addresses(&proxy).await, [IpAddr::from([127, 0, 0, 1])]);
    }
}
