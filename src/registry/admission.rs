//! Which backends the operator allows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::route::Backend;

/// Networks of addresses that no backend should have; loopback is handled apart.
const SPECIAL: [IpNet; 14] = [
    // All of it is "this host": RFC 1122, section 3.2.1.3.
    v4([0, 0, 0, 0], 8),
    // Link-local; 169.254.169.254 is the metadata service of most clouds.
    v4([169, 254, 0, 0], 16),
    // Multicast, broadcast.
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    // Metadata services of other clouds.
    v4([100, 100, 100, 200], 32),
    v4([168, 63, 129, 16], 32),
    v4([192, 0, 0, 192], 32),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
    // Unspecified, and IPv4-compatible: RFC 4291, section 2.5.5.1. Contains loopback, which is tested before.
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], bits: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), bits))
}

/// The operator's limits on backends.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Networks that backends must be in. An empty list allows all addresses but special ones, and allows loopback. With a list,
    /// names are refused: they may resolve to anything.
    pub networks: Vec<IpNet>,
    /// The proxy's own listening sockets: a route to one of them would loop.
    pub own_sockets: Vec<SocketAddr>,
}

/// Why a backend is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Outside the listed networks.
    #[error("backend {0} is outside the allowed networks")]
    Network(String),
    /// A name, while networks are listed.
    #[error("backend {0} is a name, but only addresses in the allowed networks may be used")]
    Name(String),
    /// A special address.
    #[error("backend {0} is a link-local, metadata, unspecified or multicast address")]
    Special(String),
    /// One of the proxy's own sockets.
    #[error("backend {0} is this proxy itself")]
    Loop(String),
}

impl Admission {
    /// Whether a route may lead to `backend`.
    ///
    /// # Errors
    /// An address outside the listed networks, a name while networks are listed, the proxy itself, and [special](is_special)
    /// addresses other than loopback, unless a listed network lies within a special one.
    pub fn check(&self, backend: &Backend) -> Result<(), NotAllowed> {
        let Some(addr) = backend.socket_addr() else {
            return if self.networks.is_empty() { Ok(()) } else { Err(NotAllowed::Name(backend.to_string())) };
        };
        let ip = addr.ip().to_canonical();
        if !self.networks.is_empty() && !self.networks.iter().any(|net| net.contains(&ip)) {
            return Err(NotAllowed::Network(backend.to_string()));
        }
        // A translation gateway may lead back to this machine.
        let behind = plain(ip);
        let own = |socket: &SocketAddr| {
            let listens = socket.ip().to_canonical();
            // The kernel treats the unspecified address as this machine.
            let is_same = |ip| listens == ip || listens.is_unspecified() && is_local(ip);
            socket.port() == addr.port() && (is_same(ip) || is_same(behind) || ip.is_unspecified() && is_local(listens))
        };
        if self.own_sockets.iter().any(own) {
            return Err(NotAllowed::Loop(backend.to_string()));
        }
        if is_special(ip) && !ip.is_loopback() && !self.names_special(ip) {
            return Err(NotAllowed::Special(backend.to_string()));
        }
        Ok(())
    }

    /// Whether the operator lists a special network with this address, or a part of one. `0.0.0.0/0` lists none of them.
    fn names_special(&self, ip: IpAddr) -> bool {
        let is_meant = |net: &IpNet| net.contains(&ip) && SPECIAL.iter().any(|special| special.contains(net));
        self.networks.iter().any(is_meant)
    }
}

/// Whether the address is this machine's: then the kernel chooses it as source address, too. (Binding proves nothing: with
/// `ip_nonlocal_bind` every address can be bound.)
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || address_towards(ip).is_ok_and(|from| from == ip)
}

/// The source address that the kernel chooses for `ip`. Sends nothing: connecting a UDP socket only looks up the route.
///
/// # Errors
/// Those of the socket, e.g. an unreachable network.
pub fn address_towards(ip: IpAddr) -> io::Result<IpAddr> {
    let unspecified: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.connect((ip, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Whether an address is special: loopback, link-local, unspecified, multicast, or a cloud's metadata service; also as an IPv6
/// address that embeds such an IPv4 address.
pub fn is_special(ip: IpAddr) -> bool {
    let is_plain = |ip: IpAddr| ip.is_loopback() || SPECIAL.iter().any(|special| special.contains(&ip));
    match ip.to_canonical() {
        IpAddr::V6(ip) => is_plain(ip.into()) || embedded_v4(ip).is_some_and(|ip| is_plain(ip.into())),
        ip => is_plain(ip),
    }
}

/// The address that is reached: the embedded IPv4 address that a gateway translates to, or the same address.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => embedded_v4(v6).map_or(ip, IpAddr::V4),
        ip => ip,
    }
}

/// The IPv4 address embedded in an IPv6 address: NAT64 (RFC 6052, RFC 8215), SIIT (RFC 2765), 6to4 (RFC 3056), ISATAP
/// (RFC 5214).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let o = ip.octets();
    let at = |[a, b, c, d]: [usize; 4]| Some(Ipv4Addr::new(o[a], o[b], o[c], o[d]));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => at([12, 13, 14, 15]),
        // A network's own prefix: of 48, 56 or 64 bits, with zeros after the address, or of 96.
        [0x64, 0xff9b, 1, ..] if o[8] == 0 && o[11..] == [0; 5] => at([6, 7, 9, 10]),
        [0x64, 0xff9b, 1, ..] if o[8] == 0 && o[12..] == [0; 4] => at([7, 9, 10, 11]),
        [0x64, 0xff9b, 1, ..] if o[8] == 0 && o[13..] == [0; 3] && o[9] != 0 => at([9, 10, 11, 12]),
        [0x64, 0xff9b, 1, ..] => at([12, 13, 14, 15]),
        [0, 0, 0, 0, 0xffff, 0, ..] => at([12, 13, 14, 15]),
        [0x2002, ..] => at([2, 3, 4, 5]),
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => at([12, 13, 14, 15]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(admission: &Admission, url: &str) -> Result<(), NotAllowed> {
        admission.check(&url.parse().unwrap())
    }

    #[test]
    fn listed_networks_admit_addresses_but_no_names() {
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
    fn empty_list_refuses_special_addresses_but_allows_loopback() {
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "[::]",
            "[fe80::1]",
            "[ff02::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[fd00:c1::a9fe:a9fe]",
            "[fd00:42::42]",
            "[::ffff:169.254.169.254]",
            "[::ffff:0.0.0.0]",
            "[::169.254.169.254]",
            "[::127.0.0.1]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b:1::169.254.169.254]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[64:ff9b:1:aa7f:0:1::]",
            "[64:ff9b:1:aaa9:fe:a9fe::]",
            "[64:ff9b:1:aaaa:a9:fea9:fe00::]",
            "[64:ff9b:1:0:1:0:a9fe:a9fe]",
            "[::ffff:0:127.0.0.1]",
            "[::ffff:0:169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "[2001:db8::5efe:169.254.169.254]",
            "[fe80::5efe:10.0.0.1]",
        ] {
            let refused = check(&Admission::default(), &format!("http://{bad}:80"));
            assert!(matches!(refused, Err(NotAllowed::Special(_))), "{bad}: {refused:?}");
            // A list of all networks lists none of these.
            let networks = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
            let refused = check(&Admission { networks, own_sockets: vec![] }, &format!("http://{bad}:80"));
            assert!(matches!(refused, Err(NotAllowed::Special(_))), "{bad}: {refused:?}");
        }
        for good in [
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "10.0.0.1",
            "192.0.0.1",
            "[fd00::1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::10.0.0.1]",
            "[64:ff9b:1:a00:0:100::]",
            "[::ffff:0:10.0.0.1]",
            "[2002:a00:1::1]",
            "exec-1",
        ] {
            assert_eq!(check(&Admission::default(), &format!("http://{good}:80")), Ok(()), "{good}");
        }
    }

    #[test]
    fn listed_special_network_is_allowed() {
        let networks = ["169.254.7.0/24", "10.0.0.0/8", "127.0.0.0/8"].map(|net| net.parse().unwrap()).to_vec();
        let admission = Admission { networks, own_sockets: vec![] };
        assert_eq!(check(&admission, "http://169.254.7.1:80"), Ok(()));
        assert_eq!(check(&admission, "http://127.0.0.1:80"), Ok(()));
        assert!(matches!(check(&admission, "http://169.254.169.254:80"), Err(NotAllowed::Network(_))));
    }

    #[test]
    fn local_addresses_are_recognized() {
        assert!(address_towards("192.0.2.1".parse().unwrap()).map_or(true, is_local));
        assert!(is_local("127.0.0.2".parse().unwrap()) && !is_local("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn routes_to_the_proxy_itself_are_refused() {
        let own_sockets =
            ["0.0.0.0:8080", "10.0.0.1:443", "127.0.0.1:8081"].map(|socket| socket.parse().unwrap()).to_vec();
        let admission = Admission { networks: vec![], own_sockets };
        for bad in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9:8080",
            "http://[::ffff:127.0.0.1]:8080",
            "https://10.0.0.1:443",
            "http://0.0.0.0:8081",
            "http://[::]:8081",
            "http://[::ffff:0.0.0.0]:8081",
            "https://[64:ff9b::10.0.0.1]:443",
            "https://[2002:a00:1::1]:443",
        ] {
            assert!(matches!(check(&admission, bad), Err(NotAllowed::Loop(_))), "{bad}");
        }
        for good in ["http://127.0.0.1:8082", "http://192.0.2.1:8080", "https://10.0.0.2:443", "http://exec-1:8080"] {
            assert_eq!(check(&admission, good), Ok(()), "{good}");
        }
    }
}
