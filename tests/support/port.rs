//! Ports for servers that cannot say which one the kernel gave them.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// A port that was free a moment ago, below those the kernel gives to clients: none of their connections can get in
/// between, not even while its server is down. Each test program has ports of its own.
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
