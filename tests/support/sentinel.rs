//! Sentinels for one test: real ones, and one that tells what the test wants.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::redis::RedisServer;

/// Starts a Sentinel that watches `mymaster` on this port, and does not take it for dead because a busy machine delays it: a
/// test that wants that sets another `down-after-milliseconds`.
pub fn start_sentinel(master: u16, quorum: u16, extra_lines: &str) -> RedisServer {
    let configuration = format!(
        "sentinel monitor mymaster 127.0.0.1 {master} {quorum}\n\
         sentinel down-after-milliseconds mymaster 60000\n\
         sentinel failover-timeout mymaster 3000\n\
         {extra_lines}\n"
    );
    RedisServer::start_with(Some(&configuration), &["--sentinel"])
}

/// Tells every client the same about every master. Its thread ends with the test program.
pub struct FakeSentinel {
    pub port: u16,
    told: Arc<Mutex<String>>,
}

impl FakeSentinel {
    pub fn start(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let told = Arc::new(Mutex::new(answer(host, port)));
        let tell = Arc::clone(&told);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // Each client asks one question, in one piece.
                let mut question = [0; 4096];
                if client.read(&mut question).is_ok_and(|length| length > 0) {
                    let _ = client.write_all(tell.lock().unwrap().as_bytes());
                }
            }
        });
        Self { port: own_port, told }
    }

    pub fn tell(&self, host: &str, port: u16) {
        *self.told.lock().unwrap() = answer(host, port);
    }
}

fn answer(host: &str, port: u16) -> String {
    let port = port.to_string();
    format!("*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n", host.len(), port.len())
}
