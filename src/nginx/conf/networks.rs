//! Operator-configured networks, in a form for lookups per request.

use std::net::SocketAddr;

use ipnet::IpNet;

/// Networks as masks: a comparison takes a few instructions.
#[derive(Clone, Debug, Default)]
pub(in crate::nginx) struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    pub fn add(&mut self, networks: &[IpNet]) {
        for network in networks {
            match network {
                IpNet::V4(v4) => self.v4.push((v4.network().into(), v4.netmask().into())),
                IpNet::V6(v6) => self.v6.push((v6.network().into(), v6.netmask().into())),
            }
        }
    }

    /// Whether any of the networks contains the address.
    #[inline(always)]
    pub fn contains(&self, addr: &SocketAddr) -> bool {
        match addr {
            SocketAddr::V4(v4) => self.v4.iter().any(|(network, mask)| u32::from(*v4.ip()) & mask == *network),
            SocketAddr::V6(v6) => self.v6.iter().any(|(network, mask)| u128::from(*v6.ip()) & mask == *network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_exactly_its_addresses() {
        let mut networks = Networks::default();
        networks.add(&["10.1.0.0/16", "192.0.2.1/32", "fd00::/8", "::1/128"].map(|text| text.parse().unwrap()));
        let contains = |text: &str| networks.contains(&SocketAddr::new(text.parse().unwrap(), 80));
        assert!(["10.1.0.0", "10.1.255.255", "192.0.2.1", "fdff::1", "::1"].into_iter().all(contains));
        assert!(!["10.2.0.0", "192.0.2.0", "fe00::", "::2", "::ffff:10.1.0.0"].into_iter().any(contains));
        networks.add(&["0.0.0.0/0".parse().unwrap()]);
        assert!(networks.contains(&([10, 2, 0, 0], 80).into()));
    }
}
