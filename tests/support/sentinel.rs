//! Sentinels for one test: real ones, and a fake one that names any master.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::redis::RedisServer;

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
}

impl FakeSentinel {
    pub fn start(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let reply = Arc::new(Mutex::new(reply_of(host, port)));
        let current = Arc::clone(&reply);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // Each client sends one command, in one piece.
                let mut question = [0; 4096];
                if client.read(&mut question).is_ok_and(|length| length > 0) {
                    let _ = client.write_all(current.lock().unwrap().as_bytes());
                }
            }
        });
        Self { port: own_port, reply }
    }

    /// Sets any reply.
    pub fn set_reply(&self, reply: String) {
        *self.reply.lock().unwrap() = reply;
    }

    pub fn set_master(&self, host: &str, port: u16) {
        *self.reply.lock().unwrap() = reply_of(host, port);
    }
}

fn reply_of(host: &str, port: u16) -> String {
    let port = port.to_string();
    format!("*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n", host.len(), port.len())
}
