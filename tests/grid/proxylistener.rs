//! proxylistener, as its clients and Redis see it.

mod allowed_clients;
mod commands;
mod connections;
mod destinations;
mod registering;
mod renewing;
mod servers;
mod store;
mod unregistering;
mod users;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::listener::{Listener, Ports, ask, identd, identd_by, identd_of, read_reply};
use crate::real_identd;
use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::need::{need, need_root};
use crate::support::port::free_port;
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

const IDENT_FAILED: &str = "Identd authentication failed. Please contact an administrator";
const NO_TOOL: &str = "This service available only to tool accounts";
const URL: &str = "http://127.0.0.1:8000";
/// Another host of this machine.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn start(redis: &RedisServer) -> Listener {
    Listener::start(&redis.url(), identd_of("tools.hello"), &[])
}

fn route(redis: &RedisServer, pattern: &str) -> String {
    redis.cli(&["HGET", "prefix:hello", pattern])
}

/// A server that never calls accept: the kernel accepts for it. No client connection can take its port when it is gone.
fn server() -> (TcpListener, u16) {
    let port = free_port();
    (TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap(), port)
}

fn url_of(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// A connection from one address of this machine to another.
fn connect_between(from: IpAddr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::new(from, 0)).unwrap();
    connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

/// A host with an identd for several users, and a proxylistener.
struct Grid {
    redis: RedisServer,
    listener: Listener,
    users: Arc<Mutex<HashMap<u16, &'static str>>>,
}

impl Grid {
    fn start(extra_args: &[&str]) -> Self {
        let redis = RedisServer::start(&[]);
        let users = Arc::new(Mutex::new(HashMap::new()));
        let known = Arc::clone(&users);
        let ident_port = identd_by(move |about| known.lock().unwrap().get(&about).copied().unwrap_or("nobody"));
        let args = [&["--audit-interval", "off"], extra_args].concat();
        let listener = Listener::start(&redis.url(), ident_port, &args);
        Self { redis, listener, users }
    }

    /// From now on the identd names this user for the port; with `""` it names none.
    fn own(&self, port: u16, user: &'static str) {
        self.users.lock().unwrap().insert(port, user);
    }

    /// A user's server.
    fn server_of(&self, user: &'static str) -> (TcpListener, u16) {
        let (server, port) = server();
        self.own(port, user);
        (server, port)
    }

    /// A user's connection to proxylistener, on which nothing was sent yet.
    fn client_of(&self, user: &'static str) -> TcpStream {
        let client = self.listener.connect();
        self.own(client.local_addr().unwrap().port(), user);
        client
    }

    #[track_caller]
    fn ask_as(&self, user: &'static str, command: &str) -> String {
        ask(self.client_of(user), command)
    }

    #[track_caller]
    fn register_as(&self, user: &'static str, port: u16) -> String {
        self.ask_as(user, &format!("register\n.*\n{}\n", url_of(port)))
    }

    /// The URL of a tool's route for all paths.
    fn route(&self, tool: &str) -> String {
        self.redis.cli(&["HGET", &format!("prefix:{tool}"), ".*"])
    }
}

/// Whether the other end has closed, without waiting.
fn closed(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = client.read(&mut [0]);
    client.set_nonblocking(false).unwrap();
    !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
