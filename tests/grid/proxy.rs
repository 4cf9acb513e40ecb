//! A fake proxylistener that records commands, and sends scripted replies.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use urlproxy::grid::parse_command;

use crate::support::wait::wait_for;

/// Serves until the test program ends.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy on a port of 127.0.0.1 that replies to each command with the result of `answer`, which may block.
    pub fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer).expect("a port")
    }

    /// The same at another address.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Self::start_knowing(&["register", "renew", "unregister"], address, answer)
    }

    /// An old proxy: it replies `fail` to the first line of an unknown command, and with `answer` to others.
    pub fn old(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let old = &["register\n", "registerCanonical\n", "unregister\n"];
        Self::start_knowing(old, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer).expect("a port")
    }

    fn start_knowing(
        beginnings: &'static [&'static str],
        address: SocketAddr,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let proxy = Self { address: listener.local_addr()?, received: Arc::default() };
        let (log, answer) = (Arc::clone(&proxy.received), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut received = Vec::new();
                    let mut bytes = [0; 512];
                    let is_known = |received: &[u8]| {
                        !received.contains(&b'\n')
                            || beginnings.iter().any(|begin| received.starts_with(begin.as_bytes()))
                    };
                    while let (true, Ok(None)) = (is_known(&received), parse_command(&received)) {
                        match stream.read(&mut bytes) {
                            Ok(read @ 1..) => received.extend(&bytes[..read]),
                            _ => return,
                        }
                    }
                    let received = String::from_utf8_lossy(&received).into_owned();
                    log.lock().unwrap().push(received.clone());
                    let answer = if is_known(received.as_bytes()) { answer(&received) } else { "fail".into() };
                    let _ = stream.write_all(answer.as_bytes());
                });
            }
        });
        Ok(proxy)
    }

    /// A proxy that replies `ok`.
    pub fn agreeing() -> Self {
        Self::start(|_| "ok".into())
    }

    /// A proxy that replies `ok`. It delays commands for which `is_slow(command, number)` is true until the sender sends or is
    /// dropped.
    pub fn slow(is_slow: impl Fn(&str, usize) -> bool + Send + Sync + 'static) -> (Self, Sender<()>) {
        let (resume, resumed) = channel();
        let (resumed, number) = (Mutex::new(resumed), AtomicUsize::new(0));
        let proxy = Self::start(move |command| {
            if is_slow(command, number.fetch_add(1, Relaxed)) {
                let _ = resumed.lock().unwrap().recv();
            }
            "ok".into()
        });
        (proxy, resume)
    }

    /// All received commands, in order.
    pub fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }

    /// The same without repeats: clients ask an old proxy again if it replies too late.
    pub fn received_once(&self) -> Vec<String> {
        let mut received = self.received();
        received.dedup();
        received
    }

    /// Waits until it has received exactly these commands.
    #[track_caller]
    pub fn wait_for(&self, commands: &[&str]) {
        wait_for(&format!("{commands:?}, but {:?}", self.received()), || self.received() == commands);
    }

    /// The number of received commands with this beginning.
    pub fn count(&self, beginning: &str) -> usize {
        self.received().iter().filter(|command| command.starts_with(beginning)).count()
    }

    /// The command that registers a service on this port of the clients' address.
    pub fn registration(&self, port: u16) -> String {
        self.command("register", port)
    }

    /// The command that unregisters it.
    pub fn unregistration(&self, port: u16) -> String {
        self.command("unregisterUrl", port)
    }

    /// Any command with that URL.
    pub fn command(&self, name: &str, port: u16) -> String {
        let host = match self.address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("{name}\n.*\nhttp://{host}:{port}\n")
    }
}
