//! What kube2proxy writes: routes of Services, and `k8s_services`, its memory of them.

use std::fmt;
use std::sync::LazyLock;

use redis::{FromRedisValue, ParsingError, Pipeline, Script, Value};
use serde::Serialize;

use super::lock::{LOCK_KEY, OLD_LOCK_KEY};
use super::schema::{origin_key, redirects_key, routes_key};
use super::script::with_functions;
use crate::route::ToolName;

/// How kube2proxy signs what it writes.
pub const CLUSTER: &str = "kube2proxy";
/// The set of what it has registered.
pub const SERVICES_KEY: &str = "k8s_services";

/// A member of `k8s_services`: the route of one Service. Written `namespace/name/route`, where a route is a pattern without its
/// first slash, as the old program wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registered {
    /// Of the Service.
    pub namespace: String,
    /// Of the Service, and so the tool.
    pub name: String,
    /// `.*`, or one that begins with a slash.
    pub pattern: String,
}

impl Registered {
    /// Reads a member; `None` if it is none of ours or of the old program's.
    pub fn parse(member: &str) -> Option<Self> {
        let mut parts = member.splitn(3, '/');
        let (namespace, name, route) = (parts.next()?, parts.next()?, parts.next()?);
        let pattern = if route == ".*" { route.to_owned() } else { format!("/{route}") };
        let is_whole = !namespace.is_empty() && !name.is_empty() && !route.is_empty();
        is_whole.then(|| Self { namespace: namespace.into(), name: name.into(), pattern })
    }

    /// Whose it is, as `origin:<tool>` says it.
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

/// A route that a Service is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The field of both hashes.
    pub pattern: String,
    /// The value in `prefix:<tool>`.
    pub url: String,
    /// The value in `origin:<tool>`.
    pub origin: String,
    /// Of which Service: [`Registered::owner`].
    pub owner: String,
    /// In `k8s_services`.
    pub member: String,
    /// Unix seconds: another source's route that is younger stays.
    pub since: u64,
}

/// A route that goes, if it still is that Service's.
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

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It was so already.
    Unchanged,
    /// Written.
    Written {
        /// The tool that was routed to the same address, and no longer is.
        evicted: Option<String>,
    },
    /// Another source's route is younger.
    Overridden,
}

/// What became of a tool's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing was done: somebody else may write.
    Refused,
    /// One outcome for each claim, in their order.
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

/// What one tool's routes are to be.
#[derive(Clone, Debug)]
pub struct ToolChanges<'a> {
    /// Whose.
    pub tool: &'a ToolName,
    /// What it is to have.
    pub claims: &'a [Claim],
    /// What goes, if it still is its Service's.
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

/// Gives each tool the routes of its claims, and withdraws what is gone and still its Service's. Each tool's is one step, and is
/// done only while `lock` is the value of the lock. Replies, after one reply that is an error or means nothing, with a [`Applied`]
/// for each; doing it again changes nothing. The script's text is sent once.
///
/// A route without an origin was the old program's if it is registered. One whose URL is not what its origin says was written
/// over by one of the old stack's writers, who say nothing of origins: it is that writer's from when kube2proxy sees it, and
/// then no longer registered; what is registered goes with its Service. A claim outdoes another source's route unless that is
/// younger; the redirect that came with such a route goes. Whoever else is routed to a claim's address loses those routes: the
/// API server gives an address to one Service at a time.
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
        // Strings and numbers always are JSON.
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
    fn members_are_those_of_the_old_program() {
        for (member, namespace, name, pattern) in [
            ("hello/hello/.*", "hello", "hello", ".*"),
            ("tool-hello/hello/api.*", "tool-hello", "hello", "/api.*"),
            ("a/b/v1.0_x.*", "a", "b", "/v1.0_x.*"),
        ] {
            let registered = Registered::parse(member).unwrap();
            assert_eq!((&*registered.namespace, &*registered.name, &*registered.pattern), (namespace, name, pattern));
            assert_eq!(registered.to_string(), member);
        }
        for member in ["", "a", "a/b", "a/b/", "/b/.*", "a//.*"] {
            assert_eq!(Registered::parse(member), None, "{member}");
        }
    }
}
