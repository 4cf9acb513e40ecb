//! Authorizes commands, and commits them to Redis before the client gets `ok`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::decision::{CommandError, Completed, ServerState, log_completed, log_failed};
use super::destination::{DestinationError, Resolver};
use super::identd;
use super::metrics::{CommandKind, Metrics, Outcome};
use super::probe::{PortState, find_owner};
use super::probe_limiter::ProbeLimiter;
use super::protocol::{Command, Reply};
use super::settings::{LivePolicy, Policy, Settings};
use crate::clock;
use crate::daemon::{Permit, Readiness, Reading, Store, probe_writes};
use crate::registry::{self, Origin, Ownership, Registration, Withdrawal};
use crate::route::{Backend, Host, Pattern, ToolName};

/// Clients wait 10 s for a reply. Lookups and probes end this long after the command; the rest is for Redis.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(7);
/// Longest time to find the owner of a server. A server of root takes some 3 s.
const PROBE_DEADLINE: Duration = Duration::from_secs(4);
/// Most addresses of a name that are tried: a tenant may own the name.
const MAX_ADDRESSES: usize = 16;

/// Authorizes and carries out commands.
#[derive(Debug)]
pub struct Registrar {
    pub(super) live: LivePolicy,
    /// Notified when the policy has changed.
    pub(super) reloaded: Notify,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    resolver: Resolver,
    probes: ProbeLimiter,
}

impl Registrar {
    /// Connects to nothing yet. Registers its metrics.
    pub fn new(settings: &Settings, registry: &mut Registry) -> Self {
        settings.policy.raise_fd_limit();
        settings.policy.warn_if_open();
        let metrics = Metrics::register(registry);
        Self {
            live: Arc::new(ArcSwap::from_pointee(settings.policy.clone())),
            reloaded: Notify::new(),
            store: Store::new(settings.redis.clone(), metrics.redis.clone()),
            metrics,
            resolver: Resolver::default(),
            probes: ProbeLimiter::default(),
        }
    }

    /// Keeps `readiness` in step with whether Redis accepts writes. Never ends.
    pub async fn probe_writes(&self, readiness: Readiness) {
        probe_writes(&self.store, &readiness).await;
    }

    /// Carries out a command if the client may, logs and counts the outcome.
    pub async fn decide(&self, command: Command<'_>, client: &Client<'_>) -> Reply {
        let (kind, peer) = (CommandKind::of(command), client.peer.ip());
        match self.execute(command, client).await {
            Ok((tool, done)) => {
                self.metrics.count_command(kind, Outcome::ok);
                log_completed(command, peer, &tool, &done);
                Reply::Ok
            }
            Err((tool, error)) => {
                self.metrics.count_command(kind, error.outcome());
                log_failed(command, peer, tool.as_ref(), &error);
                error.reply()
            }
        }
    }

    async fn execute(
        &self,
        command: Command<'_>,
        client: &Client<'_>,
    ) -> Result<(ToolName, Completed), (Option<ToolName>, CommandError)> {
        let policy = self.live.load_full();
        let Client { peer, local, stream, permit } = *client;
        let begun = Instant::now();
        let user = identd::ask(peer, local, policy.ident_port, policy.ident_timeout).await;
        self.metrics.observe_ident(begun.elapsed());
        let user = user.map_err(|error| (None, error.into()))?;
        // After a reset the client's port may belong to another user, and the identd's reply may be about that user.
        if !matches!(stream.take_error(), Ok(None)) {
            return Err((None, CommandError::Disconnected));
        }
        if permit.set_owner(user.clone()).is_err() {
            return Err((policy.tool_of(&user), CommandError::TooManyAtOnce(user)));
        }
        let Some(tool) = policy.tool_of(&user) else {
            return Err((None, CommandError::NoTool { user, project: policy.project.clone() }));
        };
        let deadline = begun + LOOKUP_DEADLINE;
        let caller = Caller { tool: &tool, owner: user, own: peer.ip(), policy: &policy, deadline };
        let outcome = match command {
            Command::Register { pattern, url, canonical } => self.register(caller, pattern, url, canonical).await,
            Command::Renew { pattern, url, canonical } => self.renew(caller, pattern, url, canonical).await,
            Command::Unregister { pattern } => self.unregister(caller, pattern).await,
            Command::UnregisterUrl { pattern, url } => self.unregister_url(caller, pattern, url).await,
        };
        match outcome {
            Ok(done) => Ok((tool, done)),
            Err(error) => Err((Some(tool), error)),
        }
    }

    async fn register(
        &self,
        caller: Caller<'_>,
        pattern: &str,
        url: &str,
        canonical: bool,
    ) -> Result<Completed, CommandError> {
        let target = self.verify(&caller, pattern, url).await?;
        let VerifiedTarget { pattern, backend, address, server } = target;
        let ownership = if matches!(server, ServerState::Own) { Ownership::Proven } else { Ownership::Unproven };
        let (canonical, origin) = (caller.canonical_host(canonical), caller.origin(&backend));
        let call = registry::register(caller.tool, &pattern, &backend, canonical.as_deref(), &origin, ownership)?;
        match self.store.commit(&call).await? {
            Registration::Done { evicted, .. } => Ok(Completed::Registered { backend, server, evicted }),
            Registration::AddressHeld(holder) => {
                let why = match server {
                    ServerState::Own | ServerState::NotListening => "nothing listens there".into(),
                    ServerState::Unknown(why) => why,
                };
                Err(CommandError::AddressHeld { address, holder, why })
            }
            Registration::TooManyPatterns => Err(CommandError::TooManyPatterns),
            Registration::Superseded => Err(CommandError::Superseded),
        }
    }

    async fn renew(
        &self,
        caller: Caller<'_>,
        pattern: &str,
        url: &str,
        canonical: bool,
    ) -> Result<Completed, CommandError> {
        let VerifiedTarget { pattern, backend, address, server } = self.verify(&caller, pattern, url).await?;
        match server {
            ServerState::Own => {}
            ServerState::NotListening => return Err(CommandError::NothingListens(address)),
            ServerState::Unknown(why) => return Err(CommandError::ServerUnknown { address, why }),
        }
        let (canonical, origin) = (caller.canonical_host(canonical), caller.origin(&backend));
        let call = registry::renew(caller.tool, &pattern, &backend, canonical.as_deref(), &origin)?;
        match self.store.commit(&call).await? {
            Registration::Done { evicted, is_new } => Ok(Completed::Renewed { backend, is_new, evicted }),
            Registration::AddressHeld(holder) => {
                Err(CommandError::AddressHeld { address, holder, why: "not probed".into() })
            }
            Registration::TooManyPatterns => Err(CommandError::TooManyPatterns),
            Registration::Superseded => Err(CommandError::Superseded),
        }
    }

    /// Checks a route that a client wants, and finds the owner of the server there. Refuses another user's server.
    async fn verify(&self, caller: &Caller<'_>, pattern: &str, url: &str) -> Result<VerifiedTarget, CommandError> {
        let Caller { tool, own, policy, deadline, .. } = *caller;
        let backend = url.parse()?;
        let pattern = Pattern::try_new(pattern)?;
        let resolved = timeout_at(deadline, self.resolver.resolve(tool, backend, own, &policy.allowed)).await;
        let backend = resolved.map_err(|_| DestinationError::timed_out(url))??;
        let Some(address) = backend.socket_addr() else {
            return Err(DestinationError::Elsewhere(backend.to_string()).into());
        };
        let elsewhere = Some(address.ip()).filter(|&ip| ip != own);
        let Some(_permit) = self.probes.begin(tool, elsewhere) else {
            let server = ServerState::Unknown("too many concurrent probes".into());
            return Ok(VerifiedTarget { pattern, backend, address, server });
        };
        let deadline = deadline.min(Instant::now() + PROBE_DEADLINE);
        let server = match timeout_at(deadline, find_owner(address, tool, policy)).await {
            Ok(PortState::OwnedBy(user)) if policy.tool_of(&user).as_ref() == Some(tool) => ServerState::Own,
            Ok(PortState::OwnedBy(user)) => return Err(CommandError::ForeignServer { address, user }),
            Ok(PortState::Closed) => ServerState::NotListening,
            Ok(PortState::Unknown(why)) => ServerState::Unknown(why.to_string()),
            Err(_) => ServerState::Unknown("probe timed out".into()),
        };
        Ok(VerifiedTarget { pattern, backend, address, server })
    }

    async fn unregister(&self, caller: Caller<'_>, pattern: &str) -> Result<Completed, CommandError> {
        let Caller { tool, own, deadline, .. } = caller;
        // The pattern is not validated: an earlier version accepted more.
        let mut withdrawal = self.store.commit(&registry::unregister_if_from(tool, pattern, &[own])).await?;
        if withdrawal == Withdrawal::Kept
            && let Some((url, hosts)) = self.registered_from(tool, pattern).await?
        {
            // The origin's address does not match: compare names, for dual-stack hosts and for names that an old listener wrote.
            let named = url.filter(|backend| matches!(backend.host, Host::Name(_)));
            let at_own = async |backend: &Backend| {
                let addresses = self.resolver.at_addresses(tool, backend).await.unwrap_or_default();
                addresses.iter().filter_map(Backend::socket_addr).any(|address| address.ip() == own)
            };
            if let Some(backend) = named
                && timeout_at(deadline, at_own(&backend)).await.unwrap_or(false)
            {
                withdrawal = self.store.commit(&registry::unregister_url(tool, pattern, &backend)).await?;
            }
            for host in hosts.into_iter().filter(|host| host.is_ipv4() != own.is_ipv4()) {
                if withdrawal == Withdrawal::Kept && self.is_one_host(tool, own, host, deadline).await {
                    let hosts = [own, host];
                    withdrawal = self.store.commit(&registry::unregister_if_from(tool, pattern, &hosts)).await?;
                }
            }
        }
        Ok(withdrawal.into())
    }

    /// A route's backend, if it is valid, and the addresses in it and its origin.
    async fn registered_from(
        &self,
        tool: &ToolName,
        pattern: &str,
    ) -> Result<Option<(Option<Backend>, Vec<IpAddr>)>, CommandError> {
        let mut read = redis::pipe();
        read.hget(registry::routes_key(tool.as_bytes()), pattern);
        read.hget(registry::origin_key(tool.as_bytes()), pattern);
        let (url, origin): (Option<Vec<u8>>, Option<Vec<u8>>) = self.store.commit(&Reading::new(read)).await?;
        let Some(url) = url else { return Ok(None) };
        let backend = std::str::from_utf8(&url).ok().and_then(|url| url.parse::<Backend>().ok());
        let origin = origin.and_then(|origin| serde_json::from_slice::<Origin>(&origin).ok());
        let destination = backend.as_ref().and_then(Backend::socket_addr).map(|address| address.ip());
        let registered_by = origin.and_then(|origin| origin.host.parse().ok());
        let mut hosts: Vec<IpAddr> =
            [destination, registered_by].into_iter().flatten().map(|ip| ip.to_canonical()).collect();
        hosts.dedup();
        Ok(Some((backend, hosts)))
    }

    async fn is_one_host(&self, tool: &ToolName, own: IpAddr, other: IpAddr, deadline: Instant) -> bool {
        let error = match timeout_at(deadline, self.resolver.is_one_host(tool, own, other)).await {
            Ok(Ok(is_one)) => return is_one,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "lookup timed out".into(),
        };
        debug!(tool = tool.as_str(), peer = %own, registered_from = %other, error, "host comparison failed; treated as two hosts");
        false
    }

    async fn unregister_url(&self, caller: Caller<'_>, pattern: &str, url: &str) -> Result<Completed, CommandError> {
        let Caller { tool, deadline, .. } = caller;
        let backend: Backend = url.parse()?;
        // First the URL as sent, which an old listener wrote; then with addresses, as this one writes it.
        let withdrawal = self.store.commit(&registry::unregister_url(tool, pattern, &backend)).await?;
        if withdrawal != Withdrawal::Kept {
            return Ok(withdrawal.into());
        }
        let found = timeout_at(deadline, self.resolver.at_addresses(tool, &backend)).await;
        let at_addresses = found.map_err(|_| DestinationError::timed_out(url))??;
        for at_address in at_addresses.into_iter().filter(|at_address| *at_address != backend).take(MAX_ADDRESSES) {
            let withdrawal = self.store.commit(&registry::unregister_url(tool, pattern, &at_address)).await?;
            if withdrawal != Withdrawal::Kept {
                return Ok(withdrawal.into());
            }
        }
        Ok(Completed::Kept)
    }
}

impl From<Withdrawal> for Completed {
    fn from(withdrawal: Withdrawal) -> Self {
        match withdrawal {
            Withdrawal::Removed => Self::Unregistered,
            Withdrawal::Absent => Self::Absent,
            Withdrawal::Kept => Self::Kept,
        }
    }
}

/// A client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// For socket errors.
    pub stream: &'a TcpStream,
    /// For the user's limit.
    pub permit: &'a Permit<IpAddr, String>,
}

/// An authenticated client.
struct Caller<'a> {
    tool: &'a ToolName,
    owner: String,
    own: IpAddr,
    policy: &'a Policy,
    /// For lookups and probes.
    deadline: Instant,
}

impl Caller<'_> {
    fn canonical_host(&self, is_wanted: bool) -> Option<String> {
        is_wanted.then(|| format!("{}.{}", self.tool, self.policy.canonical_domain))
    }

    fn origin(&self, backend: &Backend) -> Origin {
        let is_elsewhere = backend.socket_addr().is_none_or(|address| address.ip() != self.own);
        Origin {
            source: registry::GRID.into(),
            owner: self.owner.clone(),
            host: self.own.to_string(),
            since: clock::unix_seconds(),
            destination: is_elsewhere.then(|| backend.to_string()),
        }
    }
}

/// A route that the client may have.
struct VerifiedTarget {
    pattern: Pattern,
    backend: Backend,
    address: SocketAddr,
    server: ServerState,
}

impl Policy {
    /// The tool of a tool account.
    pub(super) fn tool_of(&self, user: &str) -> Option<ToolName> {
        let name = user.strip_prefix(self.project.as_str())?.strip_prefix('.')?;
        if name.is_empty() { None } else { ToolName::try_new(name.as_bytes()).ok() }
    }
}
