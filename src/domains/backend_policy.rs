//! Which backends are allowed: servers in the operator's networks, except this program, its metrics endpoint and its Redis.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::resolver::Resolved;
use crate::registry::{Admission, NotAllowed, address_towards};
use crate::route::{Backend, BackendError, Host};

const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// Why a backend is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendPolicyError {
    #[error("backends are empty, expected at least one, e.g. \"http://10.0.0.1:8080\"")]
    None,
    #[error(transparent)]
    Syntax(#[from] BackendError),
    /// Outside the operator's networks, or a special address.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A loopback address would be the proxy's own.
    #[error("backend {0} is a loopback address, expected a server's address")]
    Loopback(String),
    #[error("backend {0} is this API, its metrics endpoint or its Redis, expected another server")]
    Own(String),
    #[error("backend {0} resolves to an address that is not allowed: {1}")]
    Resolves(String, Box<BackendPolicyError>),
}

/// The rules for backends.
#[derive(Clone, Debug, Default)]
pub struct BackendPolicy {
    admission: Admission,
    /// Host names and ports of Redis or its Sentinels; they are resolved for each check.
    redis: Vec<(Box<str>, u16)>,
}

impl BackendPolicy {
    /// Backends must be in these networks; without networks, all addresses but special ones are allowed.
    pub fn restricted_to(networks: Vec<IpNet>) -> Self {
        Self { admission: Admission { networks, own_sockets: vec![] }, redis: vec![] }
    }

    /// Whether backends are not restricted to networks.
    pub fn allows_any(&self) -> bool {
        self.admission.networks.is_empty()
    }

    /// Excludes a socket of this program.
    pub fn exclude(&mut self, socket: SocketAddr) {
        self.admission.own_sockets.push(socket);
    }

    /// Excludes the Redis or Sentinel at `host`, an address or a name.
    pub fn exclude_redis(&mut self, host: &str, port: u16) {
        let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else {
            self.redis.push((host.trim_end_matches('.').to_ascii_lowercase().into(), port));
            return;
        };
        self.admission.own_sockets.extend(redis_sockets(ip, port));
    }

    /// Checks a backend without DNS: an address by all rules, a name by the name alone.
    ///
    /// # Errors
    /// The rule that refuses the backend.
    pub fn check(&self, backend: &Backend) -> Result<(), BackendPolicyError> {
        self.admission.check(backend).map_err(|error| match error {
            NotAllowed::Loop(backend) => BackendPolicyError::Own(backend),
            error => BackendPolicyError::NotAllowed(error),
        })?;
        match &backend.host {
            // RFC 6761, section 6.3.
            Host::Name(name) if **name == *"localhost" || name.ends_with(".localhost") => {
                Err(BackendPolicyError::Loopback(backend.to_string()))
            }
            Host::Name(name) if self.redis_names(backend.port).any(|host| host == name) => {
                Err(BackendPolicyError::Own(backend.to_string()))
            }
            Host::Name(_) => Ok(()),
            _ => match backend.socket_addr().map(|address| address.ip().to_canonical()) {
                Some(ip) if ip.is_loopback() && !self.lists_loopback(ip) => {
                    Err(BackendPolicyError::Loopback(backend.to_string()))
                }
                _ => Ok(()),
            },
        }
    }

    /// Whether the operator lists a loopback network with this address. `0.0.0.0/0` does not count: it means servers.
    fn lists_loopback(&self, ip: IpAddr) -> bool {
        let is_loopback_network =
            |net: &IpNet| net.contains(&ip) && LOOPBACK.iter().any(|loopback| loopback.contains(net));
        self.admission.networks.iter().any(is_loopback_network)
    }

    /// The host names of Redis servers with this port.
    fn redis_names(&self, port: u16) -> impl Iterator<Item = &Box<str>> {
        self.redis.iter().filter(move |(_, other)| *other == port).map(|(host, _)| host)
    }

    /// The host names to resolve for a backend: its own, and that of a Redis with the same port.
    pub fn names_of(&self, backend: &Backend) -> Vec<Box<str>> {
        let own = match &backend.host {
            // With networks, names are refused without a lookup.
            Host::Name(name) if self.allows_any() => Some(name.clone()),
            _ => None,
        };
        own.into_iter().chain(self.redis_names(backend.port).cloned()).collect()
    }

    /// Checks a backend by the addresses that its name resolves to now. A name without an address is allowed: it has no server.
    ///
    /// # Errors
    /// The rule that refuses the backend.
    pub fn check_resolved(&self, backend: &Backend, resolved: &Resolved) -> Result<(), BackendPolicyError> {
        let of = |name: &str| resolved.get(name).map_or(&[][..], Vec::as_slice);
        let addresses: Vec<IpAddr> = match &backend.host {
            Host::Name(name) => of(name).iter().map(IpAddr::to_canonical).collect(),
            _ => backend.socket_addr().map(|address| address.ip().to_canonical()).into_iter().collect(),
        };
        for redis in self.redis_names(backend.port) {
            let own_sockets = of(redis).iter().flat_map(|ip| redis_sockets(ip.to_canonical(), backend.port)).collect();
            let redis_only = Admission { networks: vec![], own_sockets };
            let is_redis = |ip: &IpAddr| {
                matches!(redis_only.check(&Backend { host: (*ip).into(), ..backend.clone() }), Err(NotAllowed::Loop(_)))
            };
            if addresses.iter().any(is_redis) {
                return Err(BackendPolicyError::Own(backend.to_string()));
            }
        }
        if matches!(backend.host, Host::Name(_)) {
            for ip in addresses {
                let meant = Backend { host: ip.into(), ..backend.clone() };
                self.check(&meant)
                    .map_err(|error| BackendPolicyError::Resolves(backend.to_string(), Box::new(error)))?;
            }
        }
        Ok(())
    }
}

/// The sockets of a Redis at this address: a Redis on this machine may listen on all of its addresses.
fn redis_sockets(ip: IpAddr, port: u16) -> impl Iterator<Item = SocketAddr> {
    let is_here = ip.is_loopback() || address_towards(ip).is_ok_and(|from| from == ip);
    let all = is_here.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    std::iter::once(SocketAddr::new(ip, port)).chain(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(networks: &[&str]) -> BackendPolicy {
        let mut policy = BackendPolicy::restricted_to(networks.iter().map(|net| net.parse().unwrap()).collect());
        policy.exclude("127.0.0.1:5668".parse().unwrap());
        policy.exclude("0.0.0.0:9284".parse().unwrap());
        policy
    }

    fn check(policy: &BackendPolicy, url: &str) -> Result<(), BackendPolicyError> {
        policy.check(&url.parse().unwrap())
    }

    #[test]
    fn loopback_is_refused_unless_its_network_is_listed() {
        for networks in [&[][..], &["0.0.0.0/0", "::/0"]] {
            let policy = policy(networks);
            for url in ["http://127.0.0.1:80", "http://127.9.9.9:80", "http://[::1]:80", "http://[::ffff:127.0.0.1]:80"]
            {
                let refused = check(&policy, url);
                assert!(matches!(refused, Err(BackendPolicyError::Loopback(_))), "{url}: {refused:?}");
            }
        }
        for url in ["http://localhost:80", "http://LocalHost.:80", "http://a.localhost:80"] {
            assert!(matches!(check(&policy(&[]), url), Err(BackendPolicyError::Loopback(_))), "{url}");
        }
        let allowed = policy(&["127.0.0.0/16", "10.0.0.0/8"]);
        assert_eq!(check(&allowed, "http://127.0.9.9:80"), Ok(()));
        assert!(check(&allowed, "http://127.1.0.1:80").is_err() && check(&allowed, "http://[::1]:80").is_err());
    }

    #[test]
    fn own_sockets_are_refused_whatever_is_listed() {
        for networks in [&[][..], &["127.0.0.0/8", "::1/128"]] {
            let mut policy = policy(networks);
            policy.exclude_redis("127.0.0.1", 6379);
            for url in [
                "http://127.0.0.1:5668",
                "http://[::ffff:127.0.0.1]:5668",
                "http://127.0.0.1:9284",
                "http://127.7.7.7:9284",
                "https://127.0.0.1:6379",
                "http://127.7.7.7:6379",
            ] {
                assert!(matches!(check(&policy, url), Err(BackendPolicyError::Own(_))), "{url}");
            }
        }
        let mut policy = policy(&[]);
        policy.exclude_redis("10.0.0.5", 6379);
        policy.exclude_redis("Redis.Example.", 6379);
        assert!(matches!(check(&policy, "http://10.0.0.5:6379"), Err(BackendPolicyError::Own(_))));
        assert!(matches!(check(&policy, "http://redis.example:6379"), Err(BackendPolicyError::Own(_))));
        for url in ["http://10.0.0.5:80", "http://redis.example:80", "http://10.0.0.6:6379", "http://10.0.0.6:5668"] {
            assert_eq!(check(&policy, url), Ok(()), "{url}");
        }
    }

    #[test]
    fn names_are_checked_by_all_their_addresses() {
        let mut policy = policy(&[]);
        policy.exclude_redis("redis.example", 6379);
        let ips = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let resolved: Resolved = [
            ("good.example".into(), ips(&["10.0.0.1", "fd00::1"])),
            ("one-bad.example".into(), ips(&["10.0.0.1", "127.0.0.1"])),
            ("metadata.example".into(), ips(&["169.254.169.254"])),
            ("nat64.example".into(), ips(&["64:ff9b::127.0.0.1"])),
            ("redis.example".into(), ips(&["10.0.0.5"])),
            ("alias.example".into(), ips(&["::ffff:10.0.0.5"])),
        ]
        .into();
        let check = |url: &str| {
            let backend: Backend = url.parse().unwrap();
            policy.check(&backend).and_then(|()| policy.check_resolved(&backend, &resolved))
        };
        for url in
            ["http://good.example:80", "http://unknown.example:80", "http://alias.example:80", "http://10.0.0.5:80"]
        {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in ["http://one-bad.example:80", "http://metadata.example:80", "http://nat64.example:80"] {
            assert!(matches!(check(url), Err(BackendPolicyError::Resolves(..))), "{url}");
        }
        for url in ["http://10.0.0.5:6379", "http://alias.example:6379", "http://redis.example:6379"] {
            assert!(matches!(check(url), Err(BackendPolicyError::Own(_))), "{url}");
        }
        let names = |url: &str| policy.names_of(&url.parse().unwrap()).join(" ");
        assert_eq!(names("http://10.0.0.1:80"), "");
        assert_eq!(names("http://10.0.0.1:6379"), "redis.example");
        assert_eq!(names("http://a.example:6379"), "a.example redis.example");
    }

    #[test]
    fn names_are_looked_up_only_without_networks() {
        let names = |networks, url: &str| policy(networks).names_of(&url.parse().unwrap());
        assert_eq!(names(&[], "http://web.example.org:80"), ["web.example.org"].map(Box::from));
        assert!(names(&["10.0.0.0/8"], "http://web.example.org:80").is_empty());
    }
}
