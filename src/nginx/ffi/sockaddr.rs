//! Socket addresses in the format of the kernel.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use nginx_sys::{AF_INET, AF_INET6, ngx_sockaddr_t};

const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;
const SUFFIX_BYTES: usize = 16;

/// A `sockaddr_in` or `sockaddr_in6`, followed by a suffix that makes the address distinct for nginx.
///
/// nginx compares all bytes of an address before it reuses a kept connection. The kernel reads only the structure: Linux
/// accepts up to 128 bytes in `connect` and requires only a minimum. So the suffix has room for two whole hashes, and no field
/// of the structure (`sin_zero`, `sin6_flowinfo`) is misused.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct PeerAddress {
    bytes: [u8; 48],
    len: usize,
}

const _: () = assert!(V6_BYTES + SUFFIX_BYTES <= 48);
// The size of an address in nginx's keepalive.
const _: () = assert!(V6_BYTES + SUFFIX_BYTES <= size_of::<ngx_sockaddr_t>());

impl PeerAddress {
    #[inline(always)]
    pub fn new(addr: &SocketAddr, suffix: [u64; 2]) -> Self {
        let mut bytes = [0; 48];
        let [owner, session] = suffix.map(u64::to_ne_bytes);
        let (family, len) = match addr {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                bytes[V4_BYTES..V4_BYTES + 8].copy_from_slice(&owner);
                bytes[V4_BYTES + 8..V4_BYTES + 16].copy_from_slice(&session);
                (AF_INET, V4_BYTES + SUFFIX_BYTES)
            }
            SocketAddr::V6(v6) => {
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[V6_BYTES..V6_BYTES + 8].copy_from_slice(&owner);
                bytes[V6_BYTES + 8..V6_BYTES + 16].copy_from_slice(&session);
                (AF_INET6, V6_BYTES + SUFFIX_BYTES)
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        Self { bytes, len }
    }

    /// The bytes, for nginx.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

/// A `sockaddr_in` or `sockaddr_in6` read back; `None` for other families.
pub(super) fn parse_sockaddr(raw: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = raw.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u32::from(u16::from_ne_bytes(*family)) {
        AF_INET => Some(SocketAddr::new(Ipv4Addr::from(*rest.first_chunk::<4>()?).into(), port)),
        AF_INET6 => {
            let ip = rest.get(4..)?.first_chunk::<16>()?;
            Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, FromRawFd};

    fn written(addr: SocketAddr, owner: u64, session: u64) -> Vec<u8> {
        PeerAddress::new(&addr, [owner, session]).bytes_mut().to_vec()
    }

    #[test]
    fn address_bytes_match_the_kernel_format() {
        for text in ["10.1.2.3:8000", "[fd00::7]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(parse_sockaddr(&written(addr, 0, 0)), Some(addr));
            assert_eq!(written(addr, 1, 2), written(addr, 1, 2));
        }
    }

    #[test]
    fn suffix_makes_distinct_bytes_for_the_same_address() {
        for text in ["10.1.2.3:8000", "[fd00::7]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            let all = [written(addr, 0, 0), written(addr, 7, 0), written(addr, 0, 7), written(addr, 7 << 40, 0)];
            for (at, one) in all.iter().enumerate() {
                assert_eq!(parse_sockaddr(one), Some(addr));
                assert!(all.iter().skip(at + 1).all(|other| other != one));
            }
        }
    }

    unsafe extern "C" {
        fn socket(family: i32, kind: i32, protocol: i32) -> i32;
        fn connect(socket: i32, address: *const u8, len: u32) -> i32;
    }

    #[test]
    fn kernel_ignores_the_suffix() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            // Skipped on a machine without IPv6.
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let addr = listener.local_addr().unwrap();
            let family = if addr.is_ipv4() { AF_INET } else { AF_INET6 };
            // SAFETY: a system call without pointers.
            let client = unsafe { socket(family as i32, 1, 0) };
            assert!(client >= 0, "{}", std::io::Error::last_os_error());
            // SAFETY: nothing else owns the descriptor.
            let client = unsafe { TcpStream::from_raw_fd(client) };
            let bytes = written(addr, u64::MAX, u64::MAX);
            // SAFETY: `len` bytes are valid.
            let outcome = unsafe { connect(client.as_raw_fd(), bytes.as_ptr(), bytes.len() as u32) };
            assert_eq!(outcome, 0, "{at}: {}", std::io::Error::last_os_error());
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        }
    }
}
