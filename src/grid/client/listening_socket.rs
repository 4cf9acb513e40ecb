//! Finds who listens on a port of this host in /proc/net/tcp and /proc/net/tcp6, proc(5).
//!
//! A successful connection would prove less: another user's server may answer it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// The state LISTEN in these files.
const LISTEN: &str = "0A";

/// A server with a full backlog does not accept a connection in this time.
const CONNECT: Duration = Duration::from_secs(1);

/// A TCP socket in state LISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The local address; unspecified for all.
    pub address: IpAddr,
    /// Its owner.
    pub uid: u32,
}

/// Why requests to a port would not reach the user's own server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    /// /proc cannot be read.
    #[error("{0} while reading /proc/net/tcp")]
    Unknown(io::ErrorKind),
    /// There is no server yet.
    #[error("nothing listens on port {0}")]
    Nothing(u16),
    /// Another user's server has the port.
    #[error("port {port} is taken by a server of another user, uid {uid}")]
    OtherUser {
        /// TCP port.
        port: u16,
        /// The server's owner.
        uid: u32,
    },
    /// The server does not listen on the address that requests come to.
    #[error("the server on port {port} listens on {address} only, expected 0.0.0.0, [::] or {wanted}")]
    Elsewhere {
        /// TCP port.
        port: u16,
        /// The server's address.
        address: IpAddr,
        /// The address of requests.
        wanted: String,
    },
    /// The server listens on `[::]`, but not for IPv4.
    #[error("the server on port {port} listens on IPv6 only, expected 0.0.0.0, [::] without IPV6_V6ONLY, or {wanted}")]
    Ipv6Only {
        /// TCP port.
        port: u16,
        /// The address of requests.
        wanted: IpAddr,
    },
}

/// All sockets that listen on this port.
///
/// # Errors
/// /proc cannot be read.
pub fn listening_on(port: u16) -> io::Result<Vec<ListeningSocket>> {
    let mut table = fs::read_to_string("/proc/net/tcp")?;
    match fs::read_to_string("/proc/net/tcp6") {
        Ok(more) => table.push_str(&more),
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(parse_sockets(&table, port))
}

/// The sockets that listen on this port, in the text of `/proc/net/tcp` and `/proc/net/tcp6`.
pub fn parse_sockets(table: &str, port: u16) -> Vec<ListeningSocket> {
    table.lines().filter_map(parse_line).filter(|(of, _)| *of == port).map(|(_, found)| found).collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid ...`; all numbers but the uid are hexadecimal.
fn parse_line(line: &str) -> Option<(u16, ListeningSocket)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    Some((u16::from_str_radix(port, 16).ok()?, ListeningSocket { address: parse_address(address)?, uid }))
}

/// Words of 32 bits in this machine's byte order, of an address in network byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if text.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
    }
    let mut bytes = [0; 16];
    for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&word(8 * index)?);
    }
    Some(Ipv6Addr::from(bytes).to_canonical())
}

impl ListeningSocket {
    /// Whether connections to `wanted` reach this socket. Assumes that `[::]` accepts IPv4: the files do not say.
    fn covers(&self, wanted: IpAddr) -> bool {
        match self.address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => wanted.is_ipv4(),
            address => address.is_unspecified() || address == wanted,
        }
    }
}

/// Whether a server of `uid`, and of no other user, gets connections to one of `wanted`; without any, to some address that other
/// hosts can reach.
pub fn check_listening(port: u16, uid: u32, wanted: &[IpAddr]) -> Result<(), NotServing> {
    let found = listening_on(port).map_err(|error| NotServing::Unknown(error.kind()))?;
    let mut outcome = if wanted.is_empty() { check(port, &found, uid, None) } else { Err(NotServing::Nothing(port)) };
    for &wanted in wanted {
        if outcome.is_err() {
            outcome = check(port, &found, uid, Some(wanted));
        }
    }
    outcome
}

/// The same for one address. Connects where /proc does not say whether `[::]` accepts IPv4.
pub async fn check_reachable(port: u16, uid: u32, wanted: IpAddr) -> Result<(), NotServing> {
    check_listening(port, uid, &[wanted])?;
    let found = listening_on(port).map_err(|error| NotServing::Unknown(error.kind()))?;
    let is_v4 = |socket: &ListeningSocket| socket.address.is_ipv4() && socket.covers(wanted);
    if wanted.is_ipv6() || found.iter().any(is_v4) {
        return Ok(());
    }
    // The kernel accepts connections for a busy server; only a refusal shows that the server does not accept IPv4.
    let connected = timeout(CONNECT, TcpStream::connect((wanted, port))).await;
    if !matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
        return Ok(());
    }
    // The server may have ended meanwhile.
    check_listening(port, uid, &[wanted])?;
    Err(NotServing::Ipv6Only { port, wanted })
}

fn check(port: u16, found: &[ListeningSocket], uid: u32, wanted: Option<IpAddr>) -> Result<(), NotServing> {
    let covers =
        |socket: &&ListeningSocket| wanted.map_or(!socket.address.is_loopback(), |wanted| socket.covers(wanted));
    let (ours, others): (Vec<_>, Vec<_>) = found.iter().partition(|socket| socket.uid == uid);
    let other = |socket: &&ListeningSocket| Err(NotServing::OtherUser { port, uid: socket.uid });
    if let Some(socket) = others.iter().copied().find(covers) {
        return other(&socket);
    }
    if ours.iter().copied().any(|socket| covers(&socket)) {
        return Ok(());
    }
    if let Some(socket) = ours.first() {
        let wanted = wanted.map_or_else(|| "an address of this host".into(), |wanted| wanted.to_string());
        return Err(NotServing::Elsewhere { port, address: socket.address, wanted });
    }
    others.first().map_or(Err(NotServing::Nothing(port)), other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const OWN: u32 = 50001;

    fn socket(address: &str, uid: u32) -> ListeningSocket {
        ListeningSocket { address: address.parse().unwrap(), uid }
    }

    #[test]
    fn lines_of_proc_are_parsed() {
        let v4 = "   0: 0100000A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 50001        0 1589 1 0 100 0 0 10 0";
        let v6 = "   1: 000000FD000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 \
                  00:00000000 00000000     0        0 2 1 0 100 0 0 10 0";
        let mapped = v6.replace("000000FD000000000000000001000000", "0000000000000000FFFF00000100000A");
        if cfg!(target_endian = "little") {
            assert_eq!(parse_line(v4), Some((8080, socket("10.0.0.1", 50001))));
            assert_eq!(parse_line(v6), Some((8080, socket("fd00::1", 0))));
            assert_eq!(parse_line(&mapped), Some((8080, socket("10.0.0.1", 0))));
        }
        for other in [&v4.replace(" 0A ", " 01 "), "  sl  local_address rem_address   st", "", "0: 1:2 3:4 0A"] {
            assert_eq!(parse_line(other), None, "{other:?}");
        }
    }

    #[test]
    fn own_sockets_are_found() {
        let uid = rustix::process::geteuid().as_raw();
        for address in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            let Ok(listener) = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(listening_on(port).unwrap().contains(&socket(address, uid)), "{address}");
            drop(listener);
            assert!(!listening_on(port).unwrap().contains(&socket(address, uid)), "{address}");
        }
    }

    #[tokio::test]
    async fn ipv6_only_server_does_not_cover_ipv4() {
        let uid = rustix::process::geteuid().as_raw();
        let (v4, v6) = (IpAddr::from([127, 0, 0, 1]), IpAddr::V6(Ipv6Addr::LOCALHOST));
        for (is_v6_only, address) in [(true, "[::]:0"), (false, "[::]:0"), (false, "0.0.0.0:0")] {
            let socket = if address.starts_with('[') {
                tokio::net::TcpSocket::new_v6()
            } else {
                tokio::net::TcpSocket::new_v4()
            };
            let socket = socket.unwrap();
            if address.starts_with('[') {
                rustix::net::sockopt::set_ipv6_v6only(&socket, is_v6_only).unwrap();
            }
            socket.bind(address.parse().unwrap()).unwrap();
            let server = socket.listen(1).unwrap();
            let port = server.local_addr().unwrap().port();
            let expected = if is_v6_only { Err(NotServing::Ipv6Only { port, wanted: v4 }) } else { Ok(()) };
            assert_eq!(check_reachable(port, uid, v4).await, expected, "{address}");
            assert_eq!(check_reachable(port, uid, v6).await.is_ok(), address.starts_with('['), "{address}");
            // Where /proc is enough there is no connection: a server may accept only one in its life.
            let accepted = timeout(Duration::from_millis(1), server.accept()).await;
            assert_eq!(accepted.is_ok(), address.starts_with('[') && !is_v6_only, "{address}");
        }
    }

    #[test]
    fn only_own_reachable_servers_are_accepted() {
        let (v4, v6) = (Some("10.0.0.1".parse().unwrap()), Some("fd00::1".parse().unwrap()));
        let loopback = Some("127.0.0.1".parse().unwrap());
        for (address, wanted, served) in [
            ("0.0.0.0", v4, true),
            ("0.0.0.0", v6, false),
            ("::", v4, true),
            ("::", v6, true),
            ("10.0.0.1", v4, true),
            ("10.0.0.2", v4, false),
            ("127.0.0.1", v4, false),
            ("127.0.0.1", loopback, true),
            ("127.0.0.2", loopback, false),
            ("127.0.0.1", None, false),
            ("10.0.0.2", None, true),
            ("::", None, true),
        ] {
            let found = check(80, &[socket(address, OWN)], OWN, wanted);
            assert_eq!(found.is_ok(), served, "{address} for {wanted:?}: {found:?}");
            if let Err(error) = found {
                assert!(matches!(error, NotServing::Elsewhere { .. }), "{address} for {wanted:?}: {error}");
            }
            let theirs = check(80, &[socket(address, 7)], OWN, wanted);
            assert_eq!(theirs, Err(NotServing::OtherUser { port: 80, uid: 7 }), "{address} for {wanted:?}");
        }
        assert_eq!(check(80, &[], OWN, v4), Err(NotServing::Nothing(80)));
        // `[::]` can be IPv6 only, and then another user may have the IPv4 side.
        let both = [socket("::", OWN), socket("0.0.0.0", 7)];
        assert_eq!(check(80, &both, OWN, v4), Err(NotServing::OtherUser { port: 80, uid: 7 }));
        assert_eq!(check(80, &[socket("127.0.0.1", 7), socket("10.0.0.1", OWN)], OWN, v4), Ok(()));
    }
}
