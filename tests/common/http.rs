//! One HTTP request, for what daemons tell of themselves.
#![allow(dead_code, reason = "each test program uses its part of this")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// GETs a path; its status and body.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the other end closes in order");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Whether the daemon that tells of itself there does its work.
pub fn is_ready(status: SocketAddr) -> bool {
    get(status, "/ready").0 == 200
}

/// The value of a sample, 0 if there is none.
pub fn metric(status: SocketAddr, sample: &str) -> f64 {
    let (_, metrics) = get(status, "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0.0)
}
