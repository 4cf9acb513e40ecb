//! Ports for servers that cannot report the port that the kernel assigned.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// A port that was free a moment ago, below the kernel's ephemeral ports: no client connection can take it, even while its server
/// is down. Each test program has its own range.
pub fn free_port() -> u16 {
    const OURS: u16 = 200;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 100) as u16 * OURS;
    loop {
        let port = first + NEXT.fetch_add(1, Relaxed) % OURS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
