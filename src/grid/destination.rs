//! Allowed destinations: the client's own host, and the networks that the operator lists. Resolves the names of backends and of
//! dual-stack hosts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::lookup_host;

use super::host_names::{SystemResolver, are_one_host};
use crate::daemon::ConcurrencyLimiter;
use crate::registry::is_special;
use crate::route::{Backend, Host, ToolName};

/// Longest time for one lookup.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// Why a destination is refused.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// A name that does not resolve, or not in time.
    #[error("{error} while looking up destination {name:?}")]
    Lookup {
        /// As the client sent it.
        name: Box<str>,
        /// The resolver's error, or a timeout.
        error: io::Error,
    },
    /// No tool's server can have this address.
    #[error("destination {0} is a loopback, link-local, metadata or multicast address")]
    Special(String),
    /// Neither the client's host, nor in a listed network.
    #[error("destination {0} is neither the client's own address nor in an allowed network")]
    Elsewhere(String),
}

impl DestinationError {
    /// The deadline passed before the lookup ended.
    pub(super) fn timed_out(url: &str) -> Self {
        Self::Lookup { name: url.into(), error: io::ErrorKind::TimedOut.into() }
    }
}

/// Looks up the names that clients send as destinations; old clients send that of their host. A tenant may own a name and
/// answer slowly, so each tool has one lookup at a time.
#[derive(Debug, Default)]
pub struct Resolver {
    of_tool: ConcurrencyLimiter<ToolName>,
}

impl Resolver {
    /// The backend to write for a client of `tool` at `own` that sends `backend`: always an address, since a name may resolve
    /// to another one later. Prefers the client's own address, else takes the first allowed one.
    ///
    /// # Errors
    /// Those of [`check`], and a name that does not resolve.
    pub async fn resolve(
        &self,
        tool: &ToolName,
        backend: Backend,
        own: IpAddr,
        allowed: &[IpNet],
    ) -> Result<Backend, DestinationError> {
        let at_addresses = self.at_addresses(tool, &backend).await?;
        let is_own = |backend: &Backend| backend.socket_addr().is_some_and(|at| at.ip() == own.to_canonical());
        if let Some(backend) = at_addresses.iter().find(|backend| is_own(backend)) {
            return check(backend, own, allowed).map(|()| backend.clone());
        }
        let checked = at_addresses.into_iter().map(|backend| check(&backend, own, allowed).map(|()| backend));
        checked.reduce(Result::or).unwrap_or_else(|| Err(DestinationError::Elsewhere(backend.to_string())))
    }

    /// The backend at each address of its host. IPv4-mapped IPv6 addresses become IPv4.
    ///
    /// # Errors
    /// A name that does not resolve.
    pub async fn at_addresses(&self, tool: &ToolName, backend: &Backend) -> Result<Vec<Backend>, DestinationError> {
        let at = |ip: IpAddr| Backend { host: ip.to_canonical().into(), ..backend.clone() };
        match &backend.host {
            Host::V4(ip) => Ok(vec![at((*ip).into())]),
            Host::V6(ip) => Ok(vec![at((*ip).into())]),
            Host::Name(name) => {
                let addresses = self.look_up(tool, name, backend.port).await;
                let addresses = addresses.map_err(|error| DestinationError::Lookup { name: name.clone(), error })?;
                let mut at_addresses: Vec<_> = addresses.into_iter().map(|address| at(address.ip())).collect();
                at_addresses.dedup();
                Ok(at_addresses)
            }
        }
    }

    /// Whether two addresses of different families belong to one host, by [`are_one_host`].
    ///
    /// # Errors
    /// A lookup that failed or timed out.
    pub async fn is_one_host(&self, tool: &ToolName, one: IpAddr, other: IpAddr) -> io::Result<bool> {
        let lookup = tokio::task::spawn_blocking(move || are_one_host(&SystemResolver, one, other));
        self.bounded(tool, async { lookup.await? }).await
    }

    async fn look_up(&self, tool: &ToolName, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = name.to_owned();
        self.bounded(tool, async move { lookup_host((name.as_str(), port)).await.map(Vec::from_iter) }).await
    }

    async fn bounded<T: Send + 'static>(
        &self,
        tool: &ToolName,
        lookup: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let busy = || io::Error::other("an earlier lookup of the tool is still running");
        let permit = self.of_tool.try_acquire(tool.clone(), 1).ok_or_else(busy)?;
        // The system's resolver cannot be interrupted: after the deadline it keeps running and holds its permit.
        let task = tokio::spawn(async move {
            let found = lookup.await;
            drop(permit);
            found
        });
        match tokio::time::timeout(LOOKUP_DEADLINE, task).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Whether a client at `own` may register `backend`, an address. A loopback address may only be its own.
///
/// # Errors
/// A special address, or another host outside `allowed`.
fn check(backend: &Backend, own: IpAddr, allowed: &[IpNet]) -> Result<(), DestinationError> {
    let elsewhere = || DestinationError::Elsewhere(backend.to_string());
    let ip = backend.socket_addr().ok_or_else(elsewhere)?.ip().to_canonical();
    let is_own = ip == own.to_canonical();
    if is_special(ip) && !(is_own && ip.is_loopback()) {
        return Err(DestinationError::Special(backend.to_string()));
    }
    if is_own || allowed.iter().any(|network| network.contains(&ip)) { Ok(()) } else { Err(elsewhere()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, own: &str, allowed: &[&str]) -> Option<DestinationError> {
        let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
        check(&url.parse().unwrap(), own.parse().unwrap(), &allowed).err()
    }

    #[test]
    fn own_host_and_allowed_networks_are_accepted() {
        for (url, own) in [
            ("http://10.0.0.1:80", "10.0.0.1"),
            ("http://[::ffff:10.0.0.1]:80", "10.0.0.1"),
            ("http://10.0.0.1:80", "::ffff:10.0.0.1"),
            ("https://[fd00::1]:80", "fd00::1"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("http://[::1]:80", "::1"),
            ("http://10.2.0.9:80", "10.0.0.1"),
        ] {
            let error = refusal(url, own, &["10.2.0.0/16"]);
            assert!(error.is_none(), "{url}: {error:?}");
        }
        assert!(matches!(
            refusal("http://10.3.0.1:80", "10.0.0.1", &["10.2.0.0/16"]),
            Some(DestinationError::Elsewhere(_))
        ));
    }

    async fn resolved(url: &str, own: &str) -> Result<String, String> {
        let tool = ToolName::try_new(b"hello").unwrap();
        let resolver = Resolver::default();
        let backend = resolver.resolve(&tool, url.parse().unwrap(), own.parse().unwrap(), &[]).await;
        assert!(resolver.of_tool.is_idle());
        backend.map(|backend| backend.to_string()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn mapped_ipv4_addresses_become_ipv4() {
        for url in ["http://[::ffff:10.0.0.1]:80", "http://[::FFFF:0a00:0001]:80", "http://10.0.0.1"] {
            for own in ["10.0.0.1", "::ffff:10.0.0.1"] {
                assert_eq!(resolved(url, own).await, Ok("http://10.0.0.1:80".into()), "{url} {own}");
            }
        }
    }

    #[tokio::test]
    async fn names_resolve_to_allowed_addresses() {
        assert_eq!(resolved("http://localhost:80", "127.0.0.1").await, Ok("http://127.0.0.1:80".into()));
        assert_eq!(resolved("https://localhost:80", "::ffff:127.0.0.1").await, Ok("https://127.0.0.1:80".into()));
        assert!(resolved("http://localhost:80", "10.0.0.1").await.unwrap_err().contains("loopback"));
        let error = resolved("http://no-such-name.invalid:80", "127.0.0.1").await.unwrap_err();
        assert!(error.contains("while looking up destination \"no-such-name.invalid\""), "{error}");
    }

    #[tokio::test]
    async fn each_tool_has_one_lookup_at_a_time() {
        let (hello, other) = (ToolName::try_new(b"hello").unwrap(), ToolName::try_new(b"other").unwrap());
        let resolver = Resolver::default();
        let slow = resolver.of_tool.try_acquire(hello.clone(), 1).unwrap();
        assert!(resolver.look_up(&hello, "localhost", 80).await.unwrap_err().to_string().contains("still running"));
        assert!(resolver.look_up(&other, "localhost", 80).await.is_ok());
        drop(slow);
        assert!(resolver.of_tool.is_idle());
    }

    #[test]
    fn special_addresses_are_refused_even_in_allowed_networks() {
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
            "[64:ff9b::169.254.169.254]",
            "[2002:7f00:1::]",
        ] {
            let error = refusal(&format!("http://{ip}:80"), "10.0.0.1", &["0.0.0.0/0", "::/0"]);
            assert!(matches!(error, Some(DestinationError::Special(_))), "{ip}");
        }
        assert!(matches!(
            refusal("http://exec-1:80", "10.0.0.1", &["0.0.0.0/0"]),
            Some(DestinationError::Elsewhere(_))
        ));
        let own_link_local = refusal("http://169.254.1.1:80", "169.254.1.1", &[]);
        assert!(matches!(own_link_local, Some(DestinationError::Special(_))));
    }
}
