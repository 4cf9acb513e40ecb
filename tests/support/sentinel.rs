//! Sentinels for one test: real ones, and a fake one that names any master.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Starts a Sentinel that watches `mymaster` on this port. Its `down-after-milliseconds` is long, so that a busy machine causes no
/// failover; tests may set another one.
pub fn start_sentinel(master: u16, quorum: u16, extra_lines: &str) -> RedisServer {
    RedisServer::start_with(Some(&sentinel_configuration(master, quorum, extra_lines)), &["--sentinel"])
}

/// The configuration of such a Sentinel.
pub fn sentinel_configuration(master: u16, quorum: u16, extra_lines: &str) -> String {
    format!(
        "sentinel monitor mymaster 127.0.0.1 {master} {quorum}\n\
         sentinel down-after-milliseconds mymaster 60000\n\
         sentinel failover-timeout mymaster 3000\n\
         {extra_lines}\n"
    )
}

/// Gives every client the same reply. Its thread ends with the test program.
pub struct FakeSentinel {
    pub port: u16,
    reply: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl FakeSentinel {
    pub fn start(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let reply = Arc::new(Mutex::new(reply_of(host, port)));
        let current = Arc::clone(&reply);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // Each client sends one command, in one piece.
                let mut question = [0; 4096];
                if client.read(&mut question).is_ok_and(|length| length > 0) {
                    counter.fetch_add(1, SeqCst);
                    let _ = client.write_all(current.lock().unwrap().as_bytes());
                }
            }
        });
        Self { port: own_port, reply, asked }
    }

    /// The URL of the master that this Sentinel and the others name.
    pub fn url(&self, others: &[&Self]) -> String {
        let others: String = others.iter().map(|other| format!(",127.0.0.1:{}", other.port)).collect();
        format!("sentinel://127.0.0.1:{}{others}/mymaster/0", self.port)
    }

    /// The number of replies so far.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    pub fn set_master(&self, host: &str, port: u16) {
        self.set_reply(reply_of(host, port));
    }

    /// Sets any reply; with an empty one the connection ends.
    pub fn set_reply(&self, reply: String) {
        *self.reply.lock().unwrap() = reply;
    }
}

fn reply_of(host: &str, port: u16) -> String {
    let port = port.to_string();
    format!("*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n", host.len(), port.len())
}

/// A server and its former replica with the same data, of which a fake Sentinel names the first as the master. Both are masters,
/// as when the network between them is cut, so the second lacks what is written from then on.
pub struct CutOff {
    pub former: RedisServer,
    pub promoted: RedisServer,
    pub sentinel: FakeSentinel,
}

impl CutOff {
    pub fn start() -> Self {
        let (former, promoted) = (RedisServer::start(&["--repl-diskless-sync-delay", "0"]), RedisServer::start(&[]));
        let sentinel = FakeSentinel::start("127.0.0.1", former.port());
        Self { former, promoted, sentinel }
    }

    /// Copies all data to the second server.
    #[track_caller]
    pub fn copy(&self) {
        let port = self.former.port().to_string();
        assert_eq!(self.promoted.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        let offset = |server: &RedisServer, word: &str| {
            let text = server.cli(&["INFO", "replication"]);
            text.lines().find_map(|line| line.trim_end().strip_prefix(word).map(str::to_owned))
        };
        wait_for("a complete copy", || {
            offset(&self.promoted, "master_link_status:").as_deref() == Some("up")
                && offset(&self.promoted, "slave_repl_offset:") == offset(&self.former, "master_repl_offset:")
        });
        assert_eq!(self.promoted.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    pub fn url(&self) -> String {
        self.sentinel.url(&[])
    }

    /// From now on the Sentinel names the second server.
    pub fn fail_over(&self) {
        self.sentinel.set_master("127.0.0.1", self.promoted.port());
    }
}

/// The number of a server's clients besides redis-cli and replicas.
pub fn clients(server: &RedisServer) -> usize {
    let list = server.cli(&["CLIENT", "LIST", "TYPE", "NORMAL"]);
    list.lines().filter(|line| !line.contains("cmd=client")).count()
}
