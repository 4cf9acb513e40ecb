//! HTTP requests to the metrics endpoints of daemons.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// GETs a path; returns status and body.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = get_with(address, path, "");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body)
}

/// GETs a path with further header lines, each ended by `\r\n`; returns head and body of the response.
#[track_caller]
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the other end closes in order");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// Whether the daemon with this metrics endpoint is ready.
pub fn is_ready(status: SocketAddr) -> bool {
    get(status, "/ready").0 == 200
}

/// The value of a sample, such as `a_total{b="c"}`. Panics if it is missing, as daemons export all samples from the start.
#[track_caller]
pub fn metric(status: SocketAddr, sample: &str) -> f64 {
    let (_, metrics) = get(status, "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no sample {sample} in\n{metrics}"))
}

/// Undoes percent-encoding and `+`.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let encoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(encoded.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
