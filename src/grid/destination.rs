//! Where a tool may send its requests to: its own host, or the networks that the operator lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::route::Backend;

/// Addresses under which clouds tell machines their secrets, as far as they are not link-local (169.254.169.254 is).
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Why a destination is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// A name may resolve to anything.
    #[error("destination {0} is a name, expected an address")]
    Name(String),
    /// No address of a tool's server.
    #[error("destination {0} is a loopback, link-local, metadata or group address")]
    Special(String),
    /// Somebody else's.
    #[error("destination {0} is neither the client's own address nor in an allowed network")]
    Elsewhere(String),
}

/// Whether a client at `own` may have requests sent to `backend`. A loopback address may only be its own.
///
/// # Errors
/// A name, an address that is nobody's, another host outside `allowed`.
pub fn check(backend: &Backend, own: IpAddr, allowed: &[IpNet]) -> Result<(), DestinationError> {
    let ip = backend.socket_addr().ok_or_else(|| DestinationError::Name(backend.to_string()))?.ip().to_canonical();
    let is_own = ip == own.to_canonical();
    if is_special(ip) && !(is_own && ip.is_loopback()) {
        return Err(DestinationError::Special(backend.to_string()));
    }
    if !is_own && !allowed.iter().any(|network| network.contains(&ip)) {
        return Err(DestinationError::Elsewhere(backend.to_string()));
    }
    Ok(())
}

fn is_special(ip: IpAddr) -> bool {
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

    fn refusal(url: &str, own: &str, allowed: &[&str]) -> Option<DestinationError> {
        let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
        check(&url.parse().unwrap(), own.parse().unwrap(), &allowed).err()
    }

    #[test]
    fn a_tool_may_have_its_own_host_and_allowed_networks() {
        for (url, own) in [
            ("http://10.0.0.1:80", "10.0.0.1"),
            ("http://[::ffff:10.0.0.1]:80", "10.0.0.1"),
            ("http://10.0.0.1:80", "::ffff:10.0.0.1"),
            ("https://[fd00::1]:80", "fd00::1"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("http://[::1]:80", "::1"),
            ("http://10.2.0.9:80", "10.0.0.1"),
        ] {
            assert_eq!(refusal(url, own, &["10.2.0.0/16"]), None, "{url}");
        }
        assert!(matches!(
            refusal("http://10.3.0.1:80", "10.0.0.1", &["10.2.0.0/16"]),
            Some(DestinationError::Elsewhere(_))
        ));
        assert!(matches!(refusal("http://exec-1:80", "10.0.0.1", &["0.0.0.0/0"]), Some(DestinationError::Name(_))));
    }

    #[test]
    fn nobodys_addresses_are_refused_whatever_is_allowed() {
        for ip in [
            "127.0.0.1",
            "127.8.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "[::1]",
            "[::]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[fe80::1]",
            "[ff02::1]",
            "[fd00:ec2::254]",
        ] {
            let error = refusal(&format!("http://{ip}:80"), "10.0.0.1", &["0.0.0.0/0", "::/0"]);
            assert!(matches!(error, Some(DestinationError::Special(_))), "{ip}");
        }
        let own_link_local = refusal("http://169.254.1.1:80", "169.254.1.1", &[]);
        assert!(matches!(own_link_local, Some(DestinationError::Special(_))));
    }
}
