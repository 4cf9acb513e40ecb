//! Finds the owner of a server: connects to its address, and asks the identd of its host about that connection.
//!
//! Before Linux 6.16 a connection belongs to the kernel until the server accepts it, and identds report the kernel as `root`,
//! as they do for a socket that the server has closed. So `root` counts only for a server that has answered and keeps the
//! connection open. A server that accepts late or answers oddly is probed until the deadline, with a request that looks like
//! one that nginx forwards, so that the server cannot treat the probe differently.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::identd::{self, IdentError};
use super::settings::Policy;
use crate::route::ToolName;

/// Longest time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Time for the server to accept before it gets the request, which it might answer by closing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// From the request on: time for the server to accept, to answer, and to show that it keeps the connection open.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Reading stops here: a server that sends more would only keep this side busy.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The user that identds report for the kernel.
const KERNEL: &str = "root";

/// What a probe found at an address.
#[derive(Debug)]
pub enum PortState {
    /// The connection is refused.
    Closed,
    /// The user whose server has accepted the connection. `root` is the user, not the kernel.
    OwnedBy(String),
    /// A server may listen; its owner is unknown.
    Unknown(UnknownOwner),
}

/// Why a server's owner is unknown.
#[derive(Debug, thiserror::Error)]
pub enum UnknownOwner {
    /// No route to the host, or connecting failed.
    #[error("{0} while connecting")]
    Unreachable(io::Error),
    /// The host is down, or the server's backlog is full.
    #[error("no connection within {CONNECT_DEADLINE:?}")]
    ConnectTimeout,
    /// The host's identd named no user.
    #[error(transparent)]
    Ident(#[from] IdentError),
    /// The connection was still the kernel's at the deadline.
    #[error("identd says {KERNEL}, and the server has not accepted the connection within {ANSWER_DEADLINE:?}")]
    NotAccepted,
    /// The connection is the kernel's again.
    #[error("identd says {KERNEL}, and the server has closed the connection")]
    Closed,
}

/// Connects to `backend` and asks its host's identd for the owner of the other end. A slow server gets a request for `tool`.
/// Takes at most some 6 s and the time of three identd replies.
pub async fn find_owner(backend: SocketAddr, tool: &ToolName, policy: &Policy) -> PortState {
    let stream = match connect(backend).await {
        Ok(stream) => stream,
        Err(found) => return found,
    };
    match stream.local_addr() {
        Ok(local) => match (Probe { stream, backend, local, policy }).owner(tool).await {
            Ok(owner) => PortState::OwnedBy(owner),
            Err(unknown) => PortState::Unknown(unknown),
        },
        Err(error) => PortState::Unknown(UnknownOwner::Unreachable(error)),
    }
}

/// Connects, and asks no identd.
///
/// # Errors
/// Never [`PortState::OwnedBy`].
pub async fn connect(backend: SocketAddr) -> Result<TcpStream, PortState> {
    match timeout(CONNECT_DEADLINE, TcpStream::connect(backend)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(PortState::Closed),
        Ok(Err(error)) => Err(PortState::Unknown(UnknownOwner::Unreachable(error))),
        Err(_) => Err(PortState::Unknown(UnknownOwner::ConnectTimeout)),
    }
}

/// Whether a host is up: its identd's port accepts a connection, or refuses it.
pub async fn host_answers(host: IpAddr, policy: &Policy) -> bool {
    matches!(connect(SocketAddr::new(host, policy.ident_port)).await, Ok(_) | Err(PortState::Closed))
}

/// One connection to a server.
struct Probe<'a> {
    stream: TcpStream,
    backend: SocketAddr,
    local: SocketAddr,
    policy: &'a Policy,
}

/// How a server has responded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Some,
    /// Possibly after an answer.
    Closed,
}

impl Probe<'_> {
    async fn owner(mut self, tool: &ToolName) -> Result<String, UnknownOwner> {
        if let Some(owner) = self.owner_unless_kernel().await? {
            return Ok(owner);
        }
        sleep(ACCEPT_PAUSE).await;
        if let Some(owner) = self.owner_unless_kernel().await? {
            return Ok(owner);
        }
        let request = request(tool, &self.policy.canonical_domain, self.local);
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let mut answer = Answer::None;
        // A failure to send is a closed connection, which reading detects too.
        let _ = timeout_at(deadline, self.stream.write_all(request.as_bytes())).await;
        if let Ok(first) = timeout_at(deadline, self.read()).await {
            answer = first;
            if let Some(owner) = self.owner_unless_kernel().await? {
                return Ok(owner);
            }
        }
        // Reads what a closed socket still had to send, to see its end.
        if answer == Answer::Closed || timeout_at(deadline, self.read_to_end()).await.is_ok() {
            answer = Answer::Closed;
        }
        let was_quiet = self.is_quiet();
        if let Some(owner) = self.owner_unless_kernel().await? {
            return Ok(owner);
        }
        match answer {
            Answer::Some if was_quiet && self.is_quiet() => Ok(KERNEL.to_owned()),
            Answer::None if was_quiet => Err(UnknownOwner::NotAccepted),
            _ => Err(UnknownOwner::Closed),
        }
    }

    /// Asks the identd; `None` for the kernel.
    async fn owner_unless_kernel(&self) -> Result<Option<String>, IdentError> {
        let Policy { ident_port, ident_timeout, .. } = *self.policy;
        let owner = identd::ask(self.backend, self.local, ident_port, ident_timeout).await?;
        Ok((owner != KERNEL).then_some(owner))
    }

    async fn read(&mut self) -> Answer {
        match self.stream.read(&mut [0; 4096]).await {
            Ok(1..) => Answer::Some,
            Ok(0) | Err(_) => Answer::Closed,
        }
    }

    /// Returns only at the end of the connection.
    async fn read_to_end(&mut self) {
        let mut bytes = [0; 4096];
        let mut left = MAX_ANSWER_BYTES;
        while left > 0 {
            match self.stream.read(&mut bytes).await {
                Ok(read @ 1..) => left = left.saturating_sub(read),
                Ok(0) | Err(_) => return,
            }
        }
        std::future::pending().await
    }

    /// Whether the connection is open and nothing is unread: its end comes after all bytes.
    fn is_quiet(&self) -> bool {
        self.stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A browser's request for the tool's front page, as nginx forwards it. The browser's address is made up: one of this host's
/// network, as of a load balancer.
fn request(tool: &ToolName, host: &str, local: SocketAddr) -> String {
    let [high, low] = local.port().to_be_bytes();
    let client = match local.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            IpAddr::from([first, second, high, low])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, local.port()])
        }
    };
    let tool: String = tool.as_bytes().iter().map(|&byte| in_path(byte)).collect();
    format!(
        "GET /{tool}/ HTTP/1.1\r\n\
         Host: {host}\r\n\
         X-Forwarded-For: {client}\r\n\
         X-Forwarded-Proto: https\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
         Accept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate, br\r\n\
         \r\n"
    )
}

/// Percent-encodes a byte: RFC 3986, section 2.3.
fn in_path(byte: u8) -> String {
    match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).into(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).into(),
        byte => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpListener;

    use super::super::options::Options;
    use super::*;

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// The result of `find_owner` with an identd that names the user that `user` returns, given the number of earlier queries.
    async fn probe(backend: SocketAddr, user: impl Fn(u32) -> &'static str + Send + 'static) -> PortState {
        let (identd, address) = listen().await;
        let replying = tokio::spawn(async move {
            for asked in 0.. {
                let mut stream = BufReader::new(identd.accept().await.unwrap().0);
                let mut query = String::new();
                stream.read_line(&mut query).await.unwrap();
                let reply = format!("{} : USERID : UNIX : {}\r\n", query.trim_end(), user(asked));
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        let port = address.port().to_string();
        let args = ["proxylistener", "--project", "tools", "--ident-port", &port];
        let options = Options::read_with_file(&args.map(Into::into)).unwrap();
        let settings = options.into_settings().unwrap();
        let found = find_owner(backend, &ToolName::try_new("he llo".as_bytes()).unwrap(), &settings.policy).await;
        replying.abort();
        found
    }

    /// A server that does this with its first connection; the flag is set once it has accepted.
    fn serve<F: Future<Output = ()> + Send>(
        server: TcpListener,
        with: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> Arc<AtomicBool> {
        let accepted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&accepted);
        tokio::spawn(async move {
            let (stream, _) = server.accept().await.unwrap();
            flag.store(true, SeqCst);
            with(stream).await;
        });
        accepted
    }

    async fn read_request(stream: &mut TcpStream) -> String {
        let mut request = String::new();
        let mut lines = BufReader::new(stream);
        while !request.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut request).await.unwrap() > 0, "{request}");
        }
        request
    }

    #[tokio::test]
    async fn port_that_refuses_is_closed() {
        let (listener, address) = listen().await;
        drop(listener);
        assert!(matches!(probe(address, |_| "tools.hello").await, PortState::Closed));
    }

    #[tokio::test]
    async fn user_is_found_without_a_request() {
        let (server, address) = listen().await;
        let found = probe(address, |_| "tools.hello").await;
        assert!(matches!(found, PortState::OwnedBy(user) if user == "tools.hello"));
        let mut sent = String::new();
        server.accept().await.unwrap().0.read_to_string(&mut sent).await.unwrap();
        assert_eq!(sent, "");
    }

    #[tokio::test]
    async fn owner_is_unknown_without_the_identd() {
        let (_server, address) = listen().await;
        assert!(matches!(probe(address, |_| "").await, PortState::Unknown(UnknownOwner::Ident(_))));
    }

    #[tokio::test]
    async fn owner_of_a_late_silent_server_is_found() {
        let (server, address) = listen().await;
        let accepted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&accepted);
        tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            let _stream = server.accept().await.unwrap();
            flag.store(true, SeqCst);
            std::future::pending::<()>().await
        });
        let found = probe(address, move |_| if accepted.load(SeqCst) { "tools.other" } else { "root" }).await;
        assert!(matches!(found, PortState::OwnedBy(user) if user == "tools.other"));
    }

    #[tokio::test]
    async fn unaccepted_connection_is_not_owned_by_root() {
        let (_server, address) = listen().await;
        assert!(matches!(probe(address, |_| "root").await, PortState::Unknown(UnknownOwner::NotAccepted)));
    }

    #[tokio::test]
    async fn root_owns_a_server_that_answers_and_keeps_the_connection() {
        let (server, address) = listen().await;
        serve(server, async |mut stream| {
            let request = read_request(&mut stream).await;
            assert!(request.starts_with("GET /he%20llo/ HTTP/1.1\r\nHost: toolforge.org\r\nX-Forwarded-For: 127.0."));
            assert!(!request.contains("audit") && !request.contains("listener"), "{request}");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            std::future::pending().await
        });
        assert!(matches!(probe(address, |_| "root").await, PortState::OwnedBy(user) if user == "root"));
    }

    #[tokio::test]
    async fn identd_is_asked_again_at_the_deadline() {
        let (server, address) = listen().await;
        serve(server, async |mut stream| {
            stream.write_all(b"H").await.unwrap();
            std::future::pending().await
        });
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        // At once, after the pause, when the server has sent something, at the deadline.
        let found = probe(address, move |before| {
            counted.store(before + 1, SeqCst);
            if before == 3 { "tools.other" } else { "root" }
        });
        assert!(matches!(found.await, PortState::OwnedBy(user) if user == "tools.other"));
        assert_eq!(asked.load(SeqCst), 4);
    }

    #[tokio::test]
    async fn closed_connection_is_not_owned_by_root() {
        for answer in [&b""[..], b"HTTP/1.0 200 OK\r\n\r\n", &[b'.'; 3 << 20]] {
            let (server, address) = listen().await;
            let accepted = serve(server, move |mut stream| async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(answer).await;
            });
            let found = probe(address, |_| "root").await;
            assert!(matches!(found, PortState::Unknown(UnknownOwner::Closed)), "{} bytes: {found:?}", answer.len());
            assert!(accepted.load(SeqCst));
        }
    }

    #[tokio::test]
    async fn owner_of_a_half_closed_connection_is_found() {
        let (server, address) = listen().await;
        let accepted = serve(server, async |mut stream| {
            read_request(&mut stream).await;
            stream.shutdown().await.unwrap();
            std::future::pending().await
        });
        // The identd knows it only once the answer has ended.
        let found =
            probe(address, move |asked| if asked > 1 && accepted.load(SeqCst) { "tools.other" } else { "root" });
        assert!(matches!(found.await, PortState::OwnedBy(user) if user == "tools.other"));
    }
}
