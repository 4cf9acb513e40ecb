//! Whether an IPv4 and an IPv6 address belong to one host: forward-confirmed reverse DNS of both.

use std::io;
use std::net::IpAddr;

/// The system's resolver, as `/etc/nsswitch.conf` configures it. Blocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

/// Forward and reverse lookups.
pub trait HostNames {
    /// The name of an address.
    fn name_of(&self, address: IpAddr) -> io::Result<String>;

    /// The addresses of a name.
    fn addresses_of(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

impl HostNames for SystemResolver {
    fn name_of(&self, address: IpAddr) -> io::Result<String> {
        Ok(dns_lookup::lookup_addr(&address)?)
    }

    fn addresses_of(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(dns_lookup::lookup_host(name)?.collect())
    }
}

/// Whether both addresses have the same name, and the name has both addresses. The owner of an address can give it any
/// name, and the owner of a name can give it any address, so each must confirm the other.
///
/// # Errors
/// The first lookup that failed.
pub fn are_one_host(names: &impl HostNames, one: IpAddr, other: IpAddr) -> io::Result<bool> {
    let name = names.name_of(one)?;
    // Resolvers return the address as text where it has no name.
    if name.parse::<IpAddr>().is_ok() || !is_same_name(&name, &names.name_of(other)?) {
        return Ok(false);
    }
    let addresses: Vec<IpAddr> = names.addresses_of(&name)?.iter().map(IpAddr::to_canonical).collect();
    Ok(addresses.contains(&one.to_canonical()) && addresses.contains(&other.to_canonical()))
}

fn is_same_name(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses with their names, and names with their addresses.
    struct Zone(&'static [(&'static str, &'static str)], &'static [(&'static str, &'static [&'static str])]);

    impl HostNames for Zone {
        fn name_of(&self, address: IpAddr) -> io::Result<String> {
            let found = self.0.iter().find(|(known, _)| known.parse::<IpAddr>().unwrap() == address);
            Ok(found.map_or_else(|| address.to_string(), |(_, name)| (*name).to_owned()))
        }

        fn addresses_of(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            let found = self.1.iter().find(|(known, _)| *known == name);
            let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(found.1.iter().map(|address| address.parse().unwrap()).collect())
        }
    }

    fn are_one(zone: &Zone) -> Option<bool> {
        let both = ["10.0.0.1", "fd00::1"].map(|address| address.parse().unwrap());
        let (there, back) = (are_one_host(zone, both[0], both[1]), are_one_host(zone, both[1], both[0]));
        assert_eq!(there.is_ok_and(|one| one), back.as_ref().is_ok_and(|one| *one), "in either order");
        back.ok()
    }

    #[test]
    fn shared_name_with_both_addresses_is_one_host() {
        const NAMES: &[(&str, &str)] = &[("10.0.0.1", "exec-1.example.org"), ("fd00::1", "exec-1.example.org")];
        assert_eq!(are_one(&Zone(NAMES, &[("exec-1.example.org", &["10.0.0.1", "fd00::1", "fd00::2"])])), Some(true));
        assert_eq!(are_one(&Zone(NAMES, &[("exec-1.example.org", &["::ffff:10.0.0.1", "fd00::1"])])), Some(true));
        let spelled = &[("10.0.0.1", "Exec-1.example.org"), ("fd00::1", "exec-1.example.org.")];
        let zone = Zone(
            spelled,
            &[("Exec-1.example.org", &["10.0.0.1", "fd00::1"]), ("exec-1.example.org.", &["10.0.0.1", "fd00::1"])],
        );
        assert_eq!(are_one(&zone), Some(true));
    }

    #[test]
    fn one_sided_claims_are_not_believed() {
        const BOTH: &[&str] = &["10.0.0.1", "fd00::1"];
        // The owner of one address names it as the other is named, but does not own the name.
        let names = &[("10.0.0.1", "exec-1.example.org"), ("fd00::1", "exec-1.example.org")];
        assert_eq!(are_one(&Zone(names, &[("exec-1.example.org", &["fd00::1"])])), Some(false));
        assert_eq!(are_one(&Zone(names, &[("exec-1.example.org", &["10.0.0.1"])])), Some(false));
        // The owner of a name gives it both addresses, but does not own both.
        let names = &[("10.0.0.1", "exec-1.example.org"), ("fd00::1", "evil.example")];
        let zone = Zone(names, &[("evil.example", BOTH), ("exec-1.example.org", &["10.0.0.1"])]);
        assert_eq!(are_one(&zone), Some(false));
        assert_eq!(are_one(&Zone(&[("fd00::1", "evil.example")], &[("evil.example", BOTH)])), Some(false));
        // No names at all.
        assert_eq!(are_one(&Zone(&[], &[])), Some(false));
        assert_eq!(
            are_one(&Zone(&[("10.0.0.1", "10.0.0.1"), ("fd00::1", "10.0.0.1")], &[("10.0.0.1", BOTH)])),
            Some(false)
        );
    }
}
