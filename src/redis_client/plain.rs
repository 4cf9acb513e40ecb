//! Non-blocking TCP and unix sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay, socket_error,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::error::ConnectionError;
use super::resolve::resolve;
use super::waiter::Waiter;

/// TCP keepalive: idle time, probe interval, number of probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// A TCP or unix socket in non-blocking mode; reading and writing never raise SIGPIPE.
pub(super) struct PlainSocket(OwnedFd);

impl PlainSocket {
    pub(super) fn unix(path: &Path, waiter: Waiter<'_>, deadline: Instant) -> Result<Self, ConnectionError> {
        let failed = |error| ConnectionError::Connect { address: path.display().to_string(), error };
        let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
        let socket = Self::new(AddressFamily::UNIX).map_err(|error| failed(error.into()))?;
        socket.connect(&address, waiter, deadline)?.map_err(failed)?;
        Ok(socket)
    }

    pub(super) fn tcp(host: &str, port: u16, waiter: Waiter<'_>, deadline: Instant) -> Result<Self, ConnectionError> {
        let addresses = resolve(host, port, waiter, deadline)?;
        let mut last = ConnectionError::Resolve { host: host.to_owned(), error: io::Error::other("no address") };
        for (tried, address) in addresses.iter().enumerate() {
            // An address that drops packets must not use up the time of the next ones.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match Self::tcp_to(*address, waiter, Instant::now() + share)? {
                Ok(socket) => return Ok(socket),
                Err(error) => last = ConnectionError::Connect { address: address.to_string(), error },
            }
        }
        Err(last)
    }

    /// The outer error is [`ConnectionError::Stopped`]; the inner error concerns this address.
    fn tcp_to(address: SocketAddr, waiter: Waiter<'_>, deadline: Instant) -> Result<io::Result<Self>, ConnectionError> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let open = || -> rustix::io::Result<Self> {
            let socket = Self::new(family)?;
            let (idle, interval, times) = KEEPALIVE;
            set_tcp_nodelay(&socket.0, true)?;
            set_socket_keepalive(&socket.0, true)?;
            set_tcp_keepidle(&socket.0, idle)?;
            set_tcp_keepintvl(&socket.0, interval)?;
            set_tcp_keepcnt(&socket.0, times)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(socket.connect(&address, waiter, deadline)?.map(|()| socket)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    fn new(family: AddressFamily) -> rustix::io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socket_with(family, SocketType::STREAM, flags, None).map(Self)
    }

    fn connect(
        &self,
        address: &impl SocketAddrArg,
        waiter: Waiter<'_>,
        deadline: Instant,
    ) -> Result<io::Result<()>, ConnectionError> {
        match connect(&self.0, address) {
            Ok(()) => return Ok(Ok(())),
            Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Ok(Err(error.into())),
        }
        if !waiter.ready(self.as_fd(), PollFlags::OUT, deadline)? {
            return Ok(Err(ErrorKind::TimedOut.into()));
        }
        Ok(socket_error(&self.0).and_then(|outcome| outcome).map_err(io::Error::from))
    }
}

impl Read for PlainSocket {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, space, RecvFlags::empty())?.0)
    }
}

impl Write for PlainSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for PlainSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
