//! Reserves a port for the command.
//!
//! The old stack let the kernel choose a port and released it, so that the next process could get it. Ports below the kernel's
//! ephemeral range go only to processes that ask for that number. Among programs that choose ports this way, a name in the
//! abstract unix namespace marks a reserved port. The TCP port itself is not bound: a server without SO_REUSEADDR could not
//! bind it then. One race remains: another program may bind this number before the command does. Then the command cannot
//! listen, and the server on the port is found to be another user's.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use super::failure::HasExitStatus;
use super::listening_socket::listening_on;
use super::status::{EX_OSERR, EX_TEMPFAIL, EX_UNAVAILABLE};

/// Ports below may be those of well-known services.
const LOWEST_PORT: u16 = 10_000;
/// A smaller range would be exhausted too easily: then the kernel chooses.
const MIN_PORTS: usize = 1000;
/// Start of the ephemeral range if the kernel does not say.
const USUAL_EPHEMERAL: u16 = 32_768;
/// How often the kernel is asked for a port when it chooses.
const TRIES: usize = 100;

/// A port, reserved among the programs of this host that use reservations, until dropped.
#[derive(Debug)]
pub struct PortReservation {
    port: u16,
    name: OwnedFd,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// All ports are taken.
    #[error("no free port on this host")]
    NoneFree,
    /// Another job has reserved the requested port.
    #[error("port {0} is reserved by another job on this host")]
    Reserved(u16),
    /// A server listens on the requested port.
    #[error("port {port} is already used by a server of uid {uid}")]
    InUse {
        /// The requested port.
        port: u16,
        /// The server's owner.
        uid: u32,
    },
    /// A socket operation failed.
    #[error("{0} while choosing a port")]
    Io(#[from] io::Error),
}

impl HasExitStatus for PortError {
    fn status(&self) -> u8 {
        match self {
            Self::NoneFree => EX_TEMPFAIL,
            Self::Reserved(_) | Self::InUse { .. } => EX_UNAVAILABLE,
            Self::Io(_) => EX_OSERR,
        }
    }
}

impl PortReservation {
    /// Reserves any free port.
    pub fn any() -> Result<Self, PortError> {
        let mut ports: Vec<u16> = below_ephemeral().collect();
        if ports.len() < MIN_PORTS {
            return Self::any_of((0..TRIES).map_while(|_| kernel_assigned().ok()));
        }
        fastrand::shuffle(&mut ports);
        Self::any_of(ports.into_iter())
    }

    fn any_of(ports: impl Iterator<Item = u16>) -> Result<Self, PortError> {
        for port in ports {
            // Reserve before testing: two programs that test at once would see each other's sockets.
            if let Some(reservation) = Self::try_reserve(port)?
                && is_free(port)?
            {
                return Ok(reservation);
            }
        }
        Err(PortError::NoneFree)
    }

    /// Reserves this port. Connections of a former server in TIME_WAIT do not matter.
    pub fn exact(port: u16) -> Result<Self, PortError> {
        let reservation = Self::try_reserve(port)?.ok_or(PortError::Reserved(port))?;
        match listening_on(port)?.first() {
            Some(socket) => Err(PortError::InUse { port, uid: socket.uid }),
            None => Ok(reservation),
        }
    }

    fn try_reserve(port: u16) -> io::Result<Option<Self>> {
        let name = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let address = SocketAddrUnix::new_abstract_name(format!("urlproxy-port-{port}").as_bytes())?;
        match bind(&name, &address) {
            Ok(()) => Ok(Some(Self { port, name })),
            Err(Errno::ADDRINUSE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// TCP port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Keeps the reservation over `exec`, as long as the new program runs.
    pub fn keep_over_exec(&self) -> io::Result<()> {
        Ok(fcntl_setfd(&self.name, FdFlags::empty())?)
    }
}

/// Ports that the kernel does not assign by itself.
fn below_ephemeral() -> Range<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low = range.split_ascii_whitespace().next().and_then(|low| low.parse().ok());
    LOWEST_PORT..low.unwrap_or(USUAL_EPHEMERAL)
}

/// Whether a server could bind the port, with SO_REUSEADDR or without, for IPv4, IPv6 or both.
fn is_free(port: u16) -> io::Result<bool> {
    for address in [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))] {
        match bound(address) {
            Ok(_) | Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {}
            Err(Errno::ADDRINUSE | Errno::ACCESS) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn kernel_assigned() -> io::Result<u16> {
    let any = bound(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
    let socket = any.or_else(|_| bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))?;
    Ok(SocketAddr::try_from(getsockname(&socket)?)?.port())
}

/// Unlike the standard library, does not set SO_REUSEADDR.
fn bound(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpListener;
    use std::thread;
    use std::time::{Duration, Instant};

    /// Like [`PortReservation::exact`], but waits while another test has the same port.
    fn exact(port: u16) -> Result<PortReservation, PortError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match PortReservation::exact(port) {
                Err(PortError::Reserved(_)) if Instant::now() < deadline => thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    #[test]
    fn ports_are_unique_and_outside_the_ephemeral_range() {
        let reservations: Vec<_> = (0..200).map(|_| PortReservation::any().unwrap()).collect();
        let ports: HashSet<_> = reservations.iter().map(PortReservation::port).collect();
        assert_eq!(ports.len(), reservations.len());
        assert!(ports.iter().all(|port| below_ephemeral().contains(port)), "{ports:?}");
        let port = reservations[0].port();
        assert!(matches!(PortReservation::exact(port), Err(PortError::Reserved(_))));
        drop(reservations);
        assert_eq!(exact(port).unwrap().port(), port);
    }

    #[test]
    fn reserved_port_can_be_bound() {
        let reservation = PortReservation::any().unwrap();
        for address in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
            assert!(bound(SocketAddr::from((address, reservation.port()))).is_ok(), "{address}");
        }
    }

    #[test]
    fn ports_in_use_are_not_free() {
        for address in ["127.0.0.1", "0.0.0.0", "::1"] {
            let port = PortReservation::any().unwrap().port();
            let Ok(_server) = TcpListener::bind((address, port)) else { continue };
            assert!(!is_free(port).unwrap(), "{address}");
            assert!(matches!(PortReservation::any_of([port].into_iter()), Err(PortError::NoneFree)));
            assert!(matches!(exact(port), Err(PortError::InUse { .. })), "{address}");
        }
    }

    #[test]
    fn kernel_assigned_ports_can_be_reserved() {
        let reservation = PortReservation::any_of((0..TRIES).map_while(|_| kernel_assigned().ok())).unwrap();
        assert!(reservation.port() > 0);
    }
}
