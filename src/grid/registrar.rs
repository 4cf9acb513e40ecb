//! Decides who may have what, and has it committed before anybody is told `ok`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::decision::{CommandError, Completed, ServerState, log_completed, log_refused};
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

/// Clients wait 10 s for their reply. Names and servers are asked about until so long after the command has come; Redis may take
/// the rest.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(7);
/// Longest time for finding out who listens. A server of root is known after some 3 s.
const PROBE_DEADLINE: Duration = Duration::from_secs(4);
/// Addresses of a name that are tried: a tenant may own the name.
const MAX_ADDRESSES: usize = 16;

/// What the decisions rest on.
#[derive(Debug)]
pub struct Registrar {
    pub(super) live: LivePolicy,
    /// Told when the policy has been exchanged.
    pub(super) reloaded: Notify,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    resolver: Resolver,
    probes: ProbeLimiter,
}

impl Registrar {
    /// Connects to nothing yet; what it counts is told by `registry`.
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

    /// Sets `readiness` by whether Redis takes writes. Never ends.
    pub async fn probe_writes(&self, readiness: Readiness) {
        probe_writes(&self.store, &readiness).await;
    }

    /// Does what a client asks, or not; one line in the log says which, and why.
    pub async fn decide(&self, command: Command<'_>, client: &Client<'_>) -> Reply {
        let (asked, peer) = (CommandKind::of(command), client.peer.ip());
        match self.execute(command, client).await {
            Ok((tool, done)) => {
                self.metrics.count_command(asked, Outcome::ok);
                log_completed(command, peer, &tool, &done);
                Reply::Ok
            }
            Err((tool, refusal)) => {
                self.metrics.count_command(asked, refusal.outcome());
                log_refused(command, peer, tool.as_ref(), &refusal);
                refusal.reply()
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
        // Once a client has reset its connection, its port may be another user's, and the answer was about him.
        if !matches!(stream.take_error(), Ok(None)) {
            return Err((None, CommandError::Gone));
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
            Err(refusal) => Err((Some(tool), refusal)),
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
                Err(CommandError::AddressHeld { address, holder, why: "it was not asked".into() })
            }
            Registration::TooManyPatterns => Err(CommandError::TooManyPatterns),
            Registration::Superseded => Err(CommandError::Superseded),
        }
    }

    /// Checks what a client wants to have, and asks who listens there. Another user's server is refused.
    async fn verify(&self, caller: &Caller<'_>, pattern: &str, url: &str) -> Result<VerifiedTarget, CommandError> {
        let Caller { tool, own, policy, deadline, .. } = *caller;
        let backend = url.parse()?;
        let pattern = Pattern::try_new(pattern)?;
        let resolved = timeout_at(deadline, self.resolver.resolve(tool, backend, own, &policy.allowed)).await;
        let backend = resolved.map_err(|_| DestinationError::late(url))??;
        let Some(address) = backend.socket_addr() else {
            return Err(DestinationError::Elsewhere(backend.to_string()).into());
        };
        let elsewhere = Some(address.ip()).filter(|&ip| ip != own);
        let Some(_under_way) = self.probes.begin(tool, elsewhere) else {
            let server = ServerState::Unknown("too many servers are being asked about at once".into());
            return Ok(VerifiedTarget { pattern, backend, address, server });
        };
        let deadline = deadline.min(Instant::now() + PROBE_DEADLINE);
        let server = match timeout_at(deadline, find_owner(address, tool, policy)).await {
            Ok(PortState::OwnedBy(user)) if policy.tool_of(&user).as_ref() == Some(tool) => ServerState::Own,
            Ok(PortState::OwnedBy(user)) => return Err(CommandError::ForeignServer { address, user }),
            Ok(PortState::Closed) => ServerState::NotListening,
            Ok(PortState::Unknown(why)) => ServerState::Unknown(why.to_string()),
            Err(_) => ServerState::Unknown("not known in time".into()),
        };
        Ok(VerifiedTarget { pattern, backend, address, server })
    }

    async fn unregister(&self, caller: Caller<'_>, pattern: &str) -> Result<Completed, CommandError> {
        let Caller { tool, own, deadline, .. } = caller;
        // Whether or not it may still be registered: an earlier version took more.
        let mut withdrawal = self.store.commit(&registry::unregister_if_from(tool, pattern, &[own])).await?;
        if withdrawal == Withdrawal::Kept
            && let Some((url, hosts)) = self.registered_from(tool, pattern).await?
        {
            // Names decide where addresses do not: those of two families, and one that an old listener wrote.
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

    /// Where a route leads, if that can be read, and the addresses that it and its origin name.
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
            Err(_) => "no answer in time".into(),
        };
        debug!(tool = tool.as_str(), peer = %own, registered_from = %other, error, "not known whether both are one host");
        false
    }

    async fn unregister_url(&self, caller: Caller<'_>, pattern: &str, url: &str) -> Result<Completed, CommandError> {
        let Caller { tool, deadline, .. } = caller;
        let backend: Backend = url.parse()?;
        // As it is written, by an old listener; then as this one writes it.
        let withdrawal = self.store.commit(&registry::unregister_url(tool, pattern, &backend)).await?;
        if withdrawal != Withdrawal::Kept {
            return Ok(withdrawal.into());
        }
        let found = timeout_at(deadline, self.resolver.at_addresses(tool, &backend)).await;
        let at_addresses = found.map_err(|_| DestinationError::late(url))??;
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

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub peer: SocketAddr,
    /// Ours, as it knows it.
    pub local: SocketAddr,
    /// The connection.
    pub stream: &'a TcpStream,
    /// Its place.
    pub permit: &'a Permit<IpAddr, String>,
}

/// Who asks, from where, and by which rules.
struct Caller<'a> {
    tool: &'a ToolName,
    owner: String,
    own: IpAddr,
    policy: &'a Policy,
    /// Of asking others.
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

/// What a client wants to have, and may.
struct VerifiedTarget {
    pattern: Pattern,
    backend: Backend,
    address: SocketAddr,
    server: ServerState,
}

impl Policy {
    /// The tool whose account this is.
    pub(super) fn tool_of(&self, user: &str) -> Option<ToolName> {
        let name = user.strip_prefix(self.project.as_str())?.strip_prefix('.')?;
        if name.is_empty() { None } else { ToolName::try_new(name.as_bytes()).ok() }
    }
}
