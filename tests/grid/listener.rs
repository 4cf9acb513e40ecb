//! The real proxylistener, its clients, and scripted identds.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::daemon::Daemon;
use crate::support::wait::SOON;

/// A running proxylistener of the project `tools`.
pub struct Listener {
    /// The process.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Starts it, and waits until it listens.
    pub fn start(redis: &str, ident_port: u16, extra_args: &[&str]) -> Self {
        Self::start_with(redis, ident_port, extra_args, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_with(redis: &str, ident_port: u16, extra_args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0", redis, ident_port, extra_args, environment)
    }

    /// The same at another address.
    pub fn start_at(
        listen: &str,
        redis: &str,
        ident_port: u16,
        extra_args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let ident_port = ident_port.to_string();
        let mut command = vec![env!("CARGO_BIN_EXE_proxylistener"), "--listen", listen, "--project", "tools"];
        command.extend(["--redis", redis, "--ident-port", &ident_port]);
        command.extend(extra_args);
        let daemon = Daemon::start(&command, environment);
        let address = daemon.address_in("listening for registrations");
        Self { daemon, address }
    }

    /// Sends bytes and returns the reply, until the listener closes.
    #[track_caller]
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        ask(self.connect(), bytes)
    }

    /// Registers `url` for `pattern`.
    #[track_caller]
    pub fn register(&self, pattern: &str, url: &str) -> String {
        self.ask(format!("register\n{pattern}\n{url}\n"))
    }

    /// A client that has sent nothing yet.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("a connection")
    }

    /// The same from another address of this machine.
    #[track_caller]
    pub fn connect_from(&self, host: Ipv4Addr) -> TcpStream {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddrV4::new(host, 0)).expect("a port");
        connect(&socket, &self.address).expect("a connection");
        TcpStream::from(socket)
    }
}

/// Sends bytes and returns the reply, until the other end closes.
#[track_caller]
pub fn ask(mut client: TcpStream, bytes: impl AsRef<[u8]>) -> String {
    client.write_all(bytes.as_ref()).expect("sent");
    read_reply(client)
}

/// Reads until the other end closes.
#[track_caller]
pub fn read_reply(mut client: TcpStream) -> String {
    client.set_read_timeout(Some(SOON)).expect("a time");
    let mut reply = String::new();
    client.read_to_string(&mut reply).expect("the other end closes in order");
    reply
}

/// An identd query: the client's port, and the listener's.
pub type Ports = (u16, u16);

/// An identd on every address of this machine; `reply` gets each connection after its query was read.
pub fn identd(reply: impl Fn(TcpStream, Ports) + Send + Sync + 'static) -> u16 {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
    let listener = both.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let reply = Arc::new(reply);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = Arc::clone(&reply);
            thread::spawn(move || {
                let mut query = String::new();
                let mut lines = BufReader::new(stream);
                if lines.read_line(&mut query).is_err() {
                    return;
                }
                let ports = query.strip_suffix("\r\n").and_then(|query| query.split_once(" , "));
                if let Some(ports) = ports.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))) {
                    reply(lines.into_inner(), ports);
                }
            });
        }
    });
    port
}

/// An identd that names this user for every connection.
pub fn identd_of(user: &'static str) -> u16 {
    identd_by(move |_| user)
}

/// An identd that names a user by the connection's port on this side.
pub fn identd_by(user: impl Fn(u16) -> &'static str + Send + Sync + 'static) -> u16 {
    identd(move |mut stream, (client, ours)| {
        let user = user(client);
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : {user}\r\n").as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
    })
}
