//! A proxylistener that records what it is sent, and answers whatever a test wants.

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
    heard: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One on a port of 127.0.0.1 whose answer to each command is `answer`'s, which may take its time.
    pub fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer).expect("a port")
    }

    /// The same somewhere else.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Self::start_knowing(&["register", "renew", "unregister"], address, answer)
    }

    /// An old one: it answers `fail` to the first line of a command that it does not know, and `answer`'s to the others.
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
        let proxy = Self { address: listener.local_addr()?, heard: Arc::default() };
        let (heard, answer) = (Arc::clone(&proxy.heard), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
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
                    heard.lock().unwrap().push(received.clone());
                    let answer = if is_known(received.as_bytes()) { answer(&received) } else { "fail".into() };
                    let _ = stream.write_all(answer.as_bytes());
                });
            }
        });
        Ok(proxy)
    }

    /// One that answers `ok`.
    pub fn agreeing() -> Self {
        Self::start(|_| "ok".into())
    }

    /// One that answers `ok`, but to what `is_slow` says of, by itself and its number, only when something is sent, or
    /// can't be any more.
    pub fn slow(is_slow: impl Fn(&str, usize) -> bool + Send + Sync + 'static) -> (Self, Sender<()>) {
        let (go_on, told) = channel();
        let (told, number) = (Mutex::new(told), AtomicUsize::new(0));
        let proxy = Self::start(move |command| {
            if is_slow(command, number.fetch_add(1, Relaxed)) {
                let _ = told.lock().unwrap().recv();
            }
            "ok".into()
        });
        (proxy, go_on)
    }

    /// All bytes of each connection on which there were any, in the order of their commands.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// The same without what was heard twice in a row: an old one is asked again what it answers too late.
    pub fn heard_once(&self) -> Vec<String> {
        let mut heard = self.heard();
        heard.dedup();
        heard
    }

    /// Waits until it has heard exactly this.
    #[track_caller]
    pub fn wait_for(&self, commands: &[&str]) {
        wait_for(&format!("{commands:?}, but {:?}", self.heard()), || self.heard() == commands);
    }

    /// How many of the commands that it has heard begin so.
    pub fn count(&self, beginning: &str) -> usize {
        self.heard().iter().filter(|command| command.starts_with(beginning)).count()
    }

    /// What a service at this port of the address that the clients come from is registered with.
    pub fn registration(&self, port: u16) -> String {
        self.command("register", port)
    }

    /// And unregistered.
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
