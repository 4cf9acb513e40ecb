//! What kube2proxy writes: routes of Services, `k8s_services`, its memory of them, and who of several may write.

use std::fmt;

use redis::{Cmd, FromRedisValue, ParsingError, Value};
use serde::Serialize;

use super::schema::{origin_key, redirects_key, routes_key};
use super::script::text_with_functions;
use crate::route::ToolName;

/// How kube2proxy signs what it writes.
pub const CLUSTER: &str = "kube2proxy";
/// The set of what it has registered.
pub const SERVICES_KEY: &str = "k8s_services";
/// Whoever's identity is its value may write; others may when it has expired.
pub const WRITER_KEY: &str = "k8s_writer";

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
struct Withdrawal {
    pattern: String,
    owner: String,
    member: String,
}

#[derive(Serialize)]
struct Request<'a> {
    withdrawals: Vec<Withdrawal>,
    claims: &'a [Claim],
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It was so already.
    Unchanged,
    /// Written.
    Written,
    /// Another source's route is younger.
    Outdone,
}

/// What became of a tool's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing was done: somebody else may write.
    Refused,
    /// One outcome for each claim, in their order.
    Done(Vec<ClaimOutcome>),
}

impl FromRedisValue for Settled {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let numbers = Vec::<i64>::from_redis_value(value)?;
        if numbers == [-1] {
            return Ok(Self::Refused);
        }
        let outcome = |number| match number {
            1 => ClaimOutcome::Written,
            2 => ClaimOutcome::Outdone,
            _ => ClaimOutcome::Unchanged,
        };
        Ok(Self::Done(numbers.into_iter().map(outcome).collect()))
    }
}

/// Gives a tool the routes of `claims`, and withdraws those of `gone` that still are their Services'. In one step, and only if
/// `identity` may write. Answers with [`Settled`]; doing it again changes nothing.
///
/// A route without an origin was the old program's if it is registered. One whose URL is not what its origin says was written
/// over by one of the old stack's writers, who say nothing of origins. A claim outdoes another's route unless that is younger;
/// the redirect that came with such a route goes.
pub fn settle(tool: &ToolName, claims: &[Claim], gone: &[Registered], identity: &str) -> Cmd {
    const SCRIPT: &str = "
        local writer = redis.pcall('GET', KEYS[4])
        if type(writer) == 'table' or writer and writer ~= ARGV[1] then return {-1} end
        local function origin_of(pattern)
            local text = redis.call('HGET', KEYS[2], pattern)
            if not text then return nil end
            local read, origin = pcall(cjson.decode, text)
            return read and type(origin) == 'table' and origin or {}
        end
        local function is_written_over(url, origin)
            return type(origin.destination) == 'string' and (not url or normal_url(url) ~= origin.destination)
        end
        local request = cjson.decode(ARGV[2])
        for _, gone in ipairs(request.withdrawals) do
            local origin = origin_of(gone.pattern)
            local url = redis.call('HGET', KEYS[1], gone.pattern)
            if not origin then
                redis.call('HDEL', KEYS[1], gone.pattern)
            elseif origin.source == 'kube2proxy' and origin.owner == gone.owner then
                redis.call('HDEL', KEYS[2], gone.pattern)
                if not is_written_over(url, origin) then redis.call('HDEL', KEYS[1], gone.pattern) end
            end
            redis.call('SREM', KEYS[3], gone.member)
        end
        local outcomes = {}
        for index, claim in ipairs(request.claims) do
            local url = redis.call('HGET', KEYS[1], claim.pattern)
            local origin = origin_of(claim.pattern)
            local since = origin and tonumber(origin.since) or 0
            local is_ours = origin and origin.source == 'kube2proxy'
            local is_younger = not is_ours and since > claim.since
            if is_ours and is_written_over(url, origin) then
                is_ours = false
                is_younger = since >= claim.since
            end
            if url and origin and is_younger then
                redis.call('SREM', KEYS[3], claim.member)
                outcomes[index] = 2
            elseif url == claim.url and is_ours and origin.owner == claim.owner
                and redis.call('SISMEMBER', KEYS[3], claim.member) == 1 then
                outcomes[index] = 0
            else
                if url and not is_ours then redis.call('HDEL', KEYS[5], claim.pattern) end
                redis.call('HSET', KEYS[1], claim.pattern, claim.url)
                redis.call('HSET', KEYS[2], claim.pattern, claim.origin)
                redis.call('SADD', KEYS[3], claim.member)
                outcomes[index] = 1
            end
        end
        return outcomes";
    let withdrawal =
        |gone: &Registered| Withdrawal { pattern: gone.pattern.clone(), owner: gone.owner(), member: gone.to_string() };
    let request = Request { withdrawals: gone.iter().map(withdrawal).collect(), claims };
    // Strings and numbers always are JSON.
    let request = serde_json::to_string(&request).unwrap_or_default();
    let mut command = redis::cmd("EVAL");
    command.arg(text_with_functions(SCRIPT)).arg(5).arg(routes_key(tool.as_bytes())).arg(origin_key(tool.as_bytes()));
    command.arg(SERVICES_KEY).arg(WRITER_KEY).arg(redirects_key(tool.as_bytes())).arg(identity).arg(request);
    command
}

/// Makes `identity` the one that may write, whoever it was.
pub fn take_over(identity: &str, time_to_live_ms: u64) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(WRITER_KEY).arg(identity).arg("PX").arg(time_to_live_ms);
    command
}

/// Renews that `identity` may write. Answers with a number: 1 it still may; 0 nobody was said to, and now it is, so what was
/// written may be gone too; -1 somebody else may.
pub fn heartbeat(identity: &str, time_to_live_ms: u64) -> Cmd {
    const SCRIPT: &str = "
        local writer = redis.pcall('GET', KEYS[1])
        if type(writer) == 'table' or writer and writer ~= ARGV[1] then return -1 end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
        return writer and 1 or 0";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(WRITER_KEY).arg(identity).arg(time_to_live_ms);
    command
}

/// Lets anybody write, if it was `identity`.
pub fn step_down(identity: &str) -> Cmd {
    const SCRIPT: &str = "
        if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
        return 1";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(WRITER_KEY).arg(identity);
    command
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
