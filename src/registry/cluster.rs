//! kube2proxy's writes: routes of Services, and the ledger of these routes, `k8s_services`.

use std::fmt;
use std::sync::LazyLock;

use redis::{FromRedisValue, ParsingError, Pipeline, Script, Value};
use serde::Serialize;

use super::lock::{LOCK_KEY, OLD_LOCK_KEY};
use super::schema::{origin_key, redirects_key, routes_key};
use super::script::with_functions;
use crate::route::ToolName;

/// kube2proxy's name in origins.
pub const CLUSTER: &str = "kube2proxy";
/// The ledger: the routes that kube2proxy has written.
pub const SERVICES_KEY: &str = "k8s_services";

/// An entry of the ledger: the route of one Service. Its text is `namespace/name/route`, where a route is a pattern without its
/// first slash, as the old program wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registered {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name, which is the tool's.
    pub name: String,
    /// `.*`, or a pattern that begins with a slash.
    pub pattern: String,
}

impl Registered {
    /// Parses an entry; `None` if it is in another form.
    pub fn parse(member: &str) -> Option<Self> {
        let mut parts = member.splitn(3, '/');
        let (namespace, name, route) = (parts.next()?, parts.next()?, parts.next()?);
        let pattern = if route == ".*" { route.to_owned() } else { format!("/{route}") };
        let is_whole = !namespace.is_empty() && !name.is_empty() && !route.is_empty();
        is_whole.then(|| Self { namespace: namespace.into(), name: name.into(), pattern })
    }

    /// The owner, as in `origin:<tool>`: `namespace/name`.
    pub fn owner(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.pattern.strip_prefix('/').unwrap_or(&self.pattern);
        write!(f, "{}/{}/{route}", self.namespace, self.name)
    }
}

/// A route that a Service wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The field of both hashes.
    pub pattern: String,
    /// The value in `prefix:<tool>`.
    pub url: String,
    /// The value in `origin:<tool>`.
    pub origin: String,
    /// The Service: [`Registered::owner`].
    pub owner: String,
    /// The entry of the ledger.
    pub member: String,
    /// Unix seconds; a more recent route of another source stays.
    pub since: u64,
}

/// A route to remove, if it still belongs to that Service.
#[derive(Debug, Serialize)]
struct StaleRoute {
    pattern: String,
    owner: String,
    member: String,
}

#[derive(Serialize)]
struct ScriptInput<'a> {
    withdrawals: Vec<StaleRoute>,
    claims: &'a [Claim],
}

/// The outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The route was already there.
    Unchanged,
    /// The route was written.
    Written {
        /// Another tool that was routed to the same address, and lost these routes.
        evicted: Option<String>,
    },
    /// A more recent route of another source stays.
    Overridden,
}

/// The outcome of one tool's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing was changed: the caller does not have the lock.
    Refused,
    /// One outcome per claim, in their order.
    Done(Vec<ClaimOutcome>),
}

impl FromRedisValue for Applied {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let outcomes = Vec::<Value>::from_redis_value(value)?;
        if outcomes == [Value::Int(-1)] {
            return Ok(Self::Refused);
        }
        let outcome = |outcome| match outcome {
            Value::Int(0) => Ok(ClaimOutcome::Unchanged),
            Value::Int(1) => Ok(ClaimOutcome::Written { evicted: None }),
            Value::Int(2) => Ok(ClaimOutcome::Overridden),
            evicted => {
                let evicted = Vec::<u8>::from_redis_value(evicted)?;
                Ok(ClaimOutcome::Written { evicted: Some(String::from_utf8_lossy(&evicted).into_owned()) })
            }
        };
        outcomes.into_iter().map(outcome).collect::<Result<_, _>>().map(Self::Done)
    }
}

/// Changes of one tool's routes.
#[derive(Clone, Debug)]
pub struct ToolChanges<'a> {
    /// The tool.
    pub tool: &'a ToolName,
    /// Routes to write.
    pub claims: &'a [Claim],
    /// Routes to remove, if they still belong to their Service.
    pub gone: &'a [Registered],
}

/// KEYS: routes, origins, redirects, services, lock, old lock. ARGV: tool, value of the lock, request.
static APPLY: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        if redis.pcall('GET', KEYS[5]) ~= ARGV[2] or redis.call('EXISTS', KEYS[6]) == 1 then return {-1} end
        local tool = ARGV[1]
        local function origin_of(pattern)
            local text = redis.call('HGET', KEYS[2], pattern)
            if not text then return nil end
            local read, origin = pcall(cjson.decode, text)
            return read and type(origin) == 'table' and origin or {}
        end
        local function is_written_over(url, origin)
            local destination = origin.destination
            if type(destination) ~= 'string' or url == destination then return false end
            return not url or normal_url(url) ~= destination
        end
        local request = cjson.decode(ARGV[3])
        for _, gone in ipairs(request.withdrawals) do
            local origin = origin_of(gone.pattern)
            local url = redis.call('HGET', KEYS[1], gone.pattern)
            if not origin or origin.source == 'kube2proxy' and origin.owner == gone.owner then
                local is_member = redis.call('SISMEMBER', KEYS[4], gone.member) == 1
                redis.call('HDEL', KEYS[2], gone.pattern)
                if url and (is_member or origin and not is_written_over(url, origin)) then
                    redis.call('HDEL', KEYS[1], gone.pattern)
                    redis.call('HDEL', KEYS[3], gone.pattern)
                    release(url, tool)
                end
            end
            redis.call('SREM', KEYS[4], gone.member)
        end
        local outcomes = {}
        for index, claim in ipairs(request.claims) do
            local url = redis.call('HGET', KEYS[1], claim.pattern)
            local origin = origin_of(claim.pattern)
            local since = origin and tonumber(origin.since) or 0
            local is_ours = origin and origin.source == 'kube2proxy'
            local is_younger = not is_ours and since > claim.since
            if is_ours and is_written_over(url, origin) and not (url and normal_url(url) == claim.url) then
                is_ours = false
                is_younger = since >= claim.since
            end
            if url and origin and is_younger then
                redis.call('SREM', KEYS[4], claim.member)
                outcomes[index] = 2
            else
                local address = claim.url:match('^https?://(.+)$')
                local is_held, holder, patterns = holder_of(address, tool)
                if holder then evict(holder, patterns, address) end
                if holder or url ~= claim.url or not is_ours or origin.owner ~= claim.owner
                    or origin.destination ~= claim.url or redis.call('SISMEMBER', KEYS[4], claim.member) == 0 then
                    if url and not is_ours then redis.call('HDEL', KEYS[3], claim.pattern) end
                    redis.call('HSET', KEYS[1], claim.pattern, claim.url)
                    redis.call('HSET', KEYS[2], claim.pattern, claim.origin)
                    redis.call('SADD', KEYS[4], claim.member)
                    if url and address_of(url) ~= address then release(url, tool) end
                    outcomes[index] = holder or 1
                else
                    outcomes[index] = 0
                end
                if not is_held then hold(address, tool) end
            end
        end
        return outcomes",
    )
});

/// Writes each tool's claims, and withdraws routes that are gone and still belong to their Service. Each tool's changes are
/// atomic, and happen only while `lock` is the value of the lock. The first reply is an error or means nothing; then comes one
/// [`Applied`] per tool. Idempotent. The script's text is sent once.
///
/// A route without an origin belongs to the old program if the ledger has it. A URL that differs from the one in its origin was
/// overwritten by an old writer, which does not write origins: the route belongs to that writer from when kube2proxy sees it,
/// and leaves the ledger; a route in the ledger is removed with its Service. A claim overrides another source's route unless
/// that is more recent, and removes the redirect of the overridden route. Another tool that is routed to a claim's address
/// loses those routes: the API server gives an address to one Service at a time.
pub fn apply(changes: &[ToolChanges<'_>], lock: &str) -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.load_script(&APPLY);
    for ToolChanges { tool, claims, gone } in changes {
        let stale = |gone: &Registered| StaleRoute {
            pattern: gone.pattern.clone(),
            owner: gone.owner(),
            member: gone.to_string(),
        };
        let request = ScriptInput { withdrawals: gone.iter().map(stale).collect(), claims };
        // Strings and numbers can always be encoded.
        let request = serde_json::to_string(&request).unwrap_or_default();
        let mut invocation = APPLY.prepare_invoke();
        let name = tool.as_bytes();
        invocation.key(routes_key(name)).key(origin_key(name)).key(redirects_key(name));
        invocation.key(SERVICES_KEY).key(LOCK_KEY).key(OLD_LOCK_KEY);
        invocation.arg(name).arg(lock).arg(request);
        pipeline.invoke_script(&invocation);
    }
    pipeline.ignore_errors();
    pipeline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_entries_have_the_old_form() {
        for (member, namespace, name, pattern) in [
            ("hello/hello/.*", "hello", "hello", ".*"),
            ("tool-hello/hello/api.*", "tool-hello", "hello", "/api.*"),
            ("a/b/v1.0_x.*", "a", "b", "/v1.0_x.*"),
        ] {
            let registered = Registered::parse(member).unwrap();
            assert_eq!((&*registered.namespace, &*registered.name, &*registered.pattern), (namespace, name, pattern));
            assert_eq!(registered.to_string(), member);
            assert_eq!(registered.owner(), format!("{namespace}/{name}"));
        }
        for member in ["", "a", "a/b", "a/b/", "/b/.*", "a//.*"] {
            assert_eq!(Registered::parse(member), None, "{member}");
        }
    }
}
