//! Parses networks in CIDR notation.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Bits before the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid network {0:?}, expected e.g. \"10.0.0.0/8\"")]
pub struct NetworkError(pub String);

/// Parses `10.0.0.0/8`, `fd00::/8` or a single address; host bits are cleared. A network of IPv4-mapped IPv6 addresses becomes an
/// IPv4 network.
///
/// # Errors
/// [`NetworkError`] for any other text.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    // `010.0.0.0` is octal for some programs, decimal for others, among them the parser of networks.
    let address: Result<IpAddr, _> = address.parse();
    let network = address.ok().and_then(|address| text.parse().ok().or((!text.contains('/')).then(|| address.into())));
    let network: IpNet = network.ok_or_else(|| NetworkError(text.to_owned()))?;
    Ok(match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS)) {
        (IpAddr::V4(address), Some(bits)) => Ipv4Net::new(address, bits).map_or(network, IpNet::from),
        _ => network,
    }
    .trunc())
}

/// Parses a comma-separated list of networks: `10.0.0.0/8,fd00::1`.
///
/// # Errors
/// [`NetworkError`] with the first invalid element.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, NetworkError> {
    text.split(',').map(parse_network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_normalized() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("fd00::/8", "fd00::/8"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(parse_network(text).map(|network| network.to_string()), Ok(network.into()), "{text}");
        }
    }

    #[test]
    fn invalid_networks_are_quoted() {
        for text in
            ["", "10.0.0.0/33", "10.0.0", "exec-1", "10.0.0.0/8 ", "[fd00::1]", "010.0.0.0/8", "010.0.0.1", "/8"]
        {
            let error = parse_network(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid network {text:?}, expected e.g. \"10.0.0.0/8\""));
        }
    }

    #[test]
    fn lists_are_comma_separated() {
        let networks = parse_networks("10.0.0.0/8,fd00::1").unwrap();
        assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::1/128"]);
        for (text, wrong) in [("", ""), ("10.0.0.0/8,", ""), ("10.0.0.0/8;fd00::1", "10.0.0.0/8;fd00::1")] {
            assert_eq!(parse_networks(text), Err(NetworkError(wrong.into())), "{text}");
        }
    }
}
