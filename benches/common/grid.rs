//! proxylistener with its surroundings: an identd that knows everybody, tools with a host and a server of their own, and a way
//! to Redis that takes its time.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use crate::child;
use crate::process::Process;

/// Another program in the place of the one that was built, such as one of an earlier version.
const PROGRAM: &str = "URLPROXY_BENCH_PROXYLISTENER";
pub const TOOLS: u32 = 3000;
/// The host of tool 0; the others' follow.
const FIRST_HOST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// Where a tool of the many has its host.
pub fn host_of(tool: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_HOST) + tool)
}

/// A running proxylistener.
pub struct Listener {
    pub process: Process,
    pub address: SocketAddr,
    pub status: SocketAddr,
}

impl Listener {
    pub fn start(redis: &str, ident_port: u16, args: &[&str]) -> Self {
        let program =
            std::env::var_os(PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_proxylistener").into(), PathBuf::from);
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--project", "tools"]);
        command.args(["--redis", redis, "--ident-port", &ident_port.to_string()]).args(args);
        let mut process = child::spawn(command.stderr(Stdio::piped())).unwrap_or_else(|e| panic!("{e}"));
        let mut log = BufReader::new(process.stderr.take().unwrap_or_else(|| panic!("a pipe"))).lines();
        let mut address_in = |text: &str| {
            let found = log.by_ref().map_while(Result::ok).find_map(|line| {
                let (_, rest) = line.split_once(text)?;
                rest.split(' ').next()?.parse().ok()
            });
            found.unwrap_or_else(|| panic!("proxylistener does not begin"))
        };
        let (status, address) =
            (address_in("metrics endpoint listening address="), address_in("listening for registrations address="));
        // A line for each registration, as in service.
        std::thread::spawn(move || log.for_each(drop));
        Self { process: Process::of(process), address, status }
    }

    /// The value of a metric.
    pub async fn sample(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.status).await.unwrap_or_else(|e| panic!("{e}"));
        let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap_or_else(|e| panic!("{e}"));
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name}"))
    }
}

/// A client from one of this machine's addresses.
pub async fn connect(address: SocketAddr, host: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap_or_else(|e| panic!("{e}"));
    // As the system does for connections, so that ports are given by the pair of addresses.
    socket.set_reuseaddr(true).unwrap_or_else(|e| panic!("{e}"));
    socket.bind(SocketAddr::from((host, 0))).unwrap_or_else(|e| panic!("{e}"));
    socket.connect(address).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Sends a command and returns the reply.
pub async fn ask(mut client: TcpStream, command: String) -> String {
    client.write_all(command.as_bytes()).await.unwrap_or_else(|e| panic!("{e}"));
    let mut reply = String::new();
    client.read_to_string(&mut reply).await.unwrap_or_else(|e| panic!("{e}"));
    reply
}

/// An identd at every address of this machine, for as long as the program runs: at the host of one of [`TOOLS`] everything is
/// its tool's, elsewhere a connection is of the tool that its port says.
pub async fn start_identd() -> u16 {
    let identd = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap_or_else(|e| panic!("{e}"));
    let port = identd.local_addr().unwrap_or_else(|e| panic!("{e}")).port();
    spawn_local(async move {
        loop {
            let (stream, _) = identd.accept().await.unwrap_or_else(|e| panic!("{e}"));
            spawn_local(name_user(stream));
        }
    });
    port
}

async fn name_user(mut stream: TcpStream) {
    let mut query = [0; 64];
    let mut len = 0;
    while !query[..len].contains(&b'\n') {
        match stream.read(&mut query[len..]).await {
            Ok(read @ 1..) => len += read,
            _ => return,
        }
    }
    let ports = String::from_utf8_lossy(&query[..len]);
    let tool = match stream.local_addr().map(|address| address.ip()) {
        Ok(IpAddr::V4(host)) if host >= FIRST_HOST => u32::from(host) - u32::from(FIRST_HOST),
        _ => tool_of_port(ports.split_once(' ').and_then(|(port, _)| port.parse().ok()).unwrap_or(0)),
    };
    let reply = format!("{} : USERID : UNIX : tools.tool-{tool}\r\n", ports.trim_end());
    let _ = stream.write_all(reply.as_bytes()).await;
}

/// Whose a client is, on a host of many tools.
pub fn tool_of_port(port: u16) -> u32 {
    u32::from(port) % TOOLS
}

/// All tools' servers, each at its host, for as long as the program runs. They take connections and say nothing.
pub async fn start_servers() -> u16 {
    let servers = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap_or_else(|e| panic!("{e}"));
    let port = servers.local_addr().unwrap_or_else(|e| panic!("{e}")).port();
    spawn_local(async move {
        loop {
            let (mut stream, _) = servers.accept().await.unwrap_or_else(|e| panic!("{e}"));
            spawn_local(async move { while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {} });
        }
    });
    port
}

/// A way to the socket of a server on which a round trip takes `delay`; returns its URL.
pub async fn start_relay(socket: PathBuf, delay: Duration) -> String {
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap_or_else(|e| panic!("{e}"));
    let address = relay.local_addr().unwrap_or_else(|e| panic!("{e}"));
    spawn_local(async move {
        loop {
            let (client, _) = relay.accept().await.unwrap_or_else(|e| panic!("{e}"));
            let _ = client.set_nodelay(true);
            let server = UnixStream::connect(&socket).await.unwrap_or_else(|e| panic!("{e}"));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            spawn_local(pass_on(from_client, to_server, delay / 2));
            spawn_local(pass_on(from_server, to_client, delay / 2));
        }
    });
    format!("redis://{address}/0")
}

/// Bytes arrive `delay` after they were sent, however many are under way.
async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin + 'static, delay: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    spawn_local(async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if sender.send((Instant::now() + delay, bytes[..read].to_vec())).is_err() {
            break;
        }
    }
}
