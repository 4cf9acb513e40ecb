//! Networks in CIDR notation: what is parsed is canonical, contains its own address, and is written as it is read.

use std::net::IpAddr;

use urlproxy::route::{parse_network, parse_networks};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let networks = parse_networks(text);
    assert_eq!(networks.is_ok(), text.split(',').all(|part| parse_network(part).is_ok()));
    for network in networks.into_iter().flatten() {
        assert_eq!(network, network.trunc());
        assert!(network.contains(&network.addr()));
        assert_eq!(parse_network(&network.to_string()), Ok(network));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let network = parse_network(text).expect("an address is a network of one");
        assert_eq!((network.addr(), network.hosts().count()), (address.to_canonical(), 1));
    }
    if let Ok(network) = parse_network(text)
        && let Some((address, _)) = text.split_once('/')
    {
        // Only a network of nothing but IPv4-mapped addresses becomes one of IPv4.
        let address: IpAddr = address.parse().expect("an address");
        assert!(network.contains(&address) || network.contains(&address.to_canonical()), "{text}");
    }
}
