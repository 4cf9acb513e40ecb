//! Which destinations an operator lets routes have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::route::Backend;

/// Addresses under which clouds tell machines their secrets, as far as they are not link-local (169.254.169.254 is).
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The operator's limits on backends.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Networks that backends must be in; empty is any. With a list, a name is refused: it may resolve to anything.
    pub networks: Vec<IpNet>,
    /// The proxy's own listening sockets: a route to one of them would loop.
    pub own_sockets: Vec<SocketAddr>,
}

/// Why a destination is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Outside the listed networks.
    #[error("backend {0} is outside the allowed networks")]
    Network(String),
    /// A name, where only networks are allowed.
    #[error("backend {0} is a name, but only addresses in the allowed networks may be used")]
    Name(String),
    /// One of the proxy's own sockets.
    #[error("backend {0} is this proxy itself")]
    Loop(String),
}

impl Admission {
    /// Whether a route may lead to `backend`.
    ///
    /// # Errors
    /// A network that is not listed, a name while networks are listed, the proxy itself.
    pub fn check(&self, backend: &Backend) -> Result<(), NotAllowed> {
        let Some(addr) = backend.socket_addr() else {
            return if self.networks.is_empty() { Ok(()) } else { Err(NotAllowed::Name(backend.to_string())) };
        };
        let ip = addr.ip().to_canonical();
        if !self.networks.is_empty() && !self.networks.iter().any(|net| net.contains(&ip)) {
            return Err(NotAllowed::Network(backend.to_string()));
        }
        let own = |socket: &SocketAddr| {
            let listens = socket.ip().to_canonical();
            socket.port() == addr.port() && (listens == ip || listens.is_unspecified() && is_local(ip))
        };
        if self.own_sockets.iter().any(own) {
            return Err(NotAllowed::Loop(backend.to_string()));
        }
        Ok(())
    }
}

/// Whether the address is this machine's: the kernel then speaks to it from the same address. (Binding would not tell: with
/// `ip_nonlocal_bind` every address can be bound.)
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || address_towards(ip).is_ok_and(|from| from == ip)
}

/// From which of its addresses this machine speaks to `ip`, if nothing else is asked for. Nothing is sent: connecting a UDP
/// socket only asks the kernel which way it would go.
///
/// # Errors
/// The system's, as when there is no way.
pub fn address_towards(ip: IpAddr) -> io::Result<IpAddr> {
    let unspecified: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.connect((ip, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Whether an address is nobody's server: loopback, link-local, unspecified, of a group, or where clouds tell secrets.
pub fn is_special(ip: IpAddr) -> bool {
    let kind = match ip {
        // All of 0.0.0.0/8 is "this host": RFC 1122, section 3.2.1.3.
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        // `::a.b.c.d` is an IPv4 address in disguise.
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments()[..6] == [0; 6],
    };
    kind || ip.is_loopback() || ip.is_multicast() || METADATA.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(admission: &Admission, url: &str) -> Result<(), NotAllowed> {
        admission.check(&url.parse().unwrap())
    }

    #[test]
    fn networks_admit_their_addresses_and_no_names() {
        let admission = Admission {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            own_sockets: vec![],
        };
        for good in ["http://10.255.0.1:80", "http://[fd00::1]:80", "http://[::ffff:10.0.0.1]:80"] {
            assert_eq!(check(&admission, good), Ok(()), "{good}");
        }
        assert!(matches!(check(&admission, "http://11.0.0.1:80"), Err(NotAllowed::Network(_))));
        assert!(matches!(check(&admission, "http://[::1]:80"), Err(NotAllowed::Network(_))));
        assert!(matches!(check(&admission, "http://exec-1:80"), Err(NotAllowed::Name(_))));
    }

    #[test]
    fn an_interface_has_local_addresses_and_others_do_not() {
        assert!(address_towards("192.0.2.1".parse().unwrap()).map_or(true, is_local));
        assert!(is_local("127.0.0.2".parse().unwrap()) && !is_local("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn no_route_leads_back_to_the_proxy() {
        let own_sockets = vec!["0.0.0.0:8080".parse().unwrap(), "10.0.0.1:443".parse().unwrap()];
        let admission = Admission { networks: vec![], own_sockets };
        for bad in
            ["http://127.0.0.1:8080", "http://127.9.9.9:8080", "http://[::ffff:127.0.0.1]:8080", "https://10.0.0.1:443"]
        {
            assert!(matches!(check(&admission, bad), Err(NotAllowed::Loop(_))), "{bad}");
        }
        for good in ["http://127.0.0.1:8081", "http://192.0.2.1:8080", "https://10.0.0.2:443", "http://exec-1:8080"] {
            assert_eq!(check(&admission, good), Ok(()), "{good}");
        }
    }
}
