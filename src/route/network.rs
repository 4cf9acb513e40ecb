//! Networks as operators write them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// In an IPv4 address in IPv6 form (RFC 4291, section 2.5.5.2) the bits before that address.
const MAPPED_BITS: u8 = 96;

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid network {0:?}, expected e.g. \"10.0.0.0/8\"")]
pub struct NetworkError(pub String);

/// Reads `10.0.0.0/8`, `fd00::/8` or one address, without bits behind the prefix. Addresses are compared in their own family: a
/// network of IPv4 addresses in IPv6 form is one of IPv4.
///
/// # Errors
/// Anything else.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
    let network: IpNet = network.map_err(|_| NetworkError(text.to_owned()))?;
    Ok(match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS)) {
        (IpAddr::V4(address), Some(bits)) => Ipv4Net::new(address, bits).map_or(network, IpNet::from),
        _ => network,
    }
    .trunc())
}

/// The same of a list with commas: `10.0.0.0/8,fd00::1`.
///
/// # Errors
/// The first that is no network.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, NetworkError> {
    text.split(',').map(parse_network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_form() {
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
    fn anything_else_is_shown() {
        for text in ["", "10.0.0.0/33", "10.0.0", "exec-1", "10.0.0.0/8 ", "[fd00::1]"] {
            let error = parse_network(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid network {text:?}, expected e.g. \"10.0.0.0/8\""));
        }
    }

    #[test]
    fn a_list_has_commas() {
        let networks = parse_networks("10.0.0.0/8,fd00::1").unwrap();
        assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::1/128"]);
        for (text, wrong) in [("", ""), ("10.0.0.0/8,", ""), ("10.0.0.0/8;fd00::1", "10.0.0.0/8;fd00::1")] {
            assert_eq!(parse_networks(text), Err(NetworkError(wrong.into())), "{text}");
        }
    }
}
