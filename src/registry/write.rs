//! Writes routes, by scripts for blocking and asynchronous connections.

use std::net::IpAddr;
use std::sync::LazyLock;

use redis::{FromRedisValue, ParsingError, Script, Value};

use super::origin::{GridRoute, Origin};
use super::script::{Call, on_routes_of, with_functions};
use crate::route::{Backend, MAX_ROUTES, Pattern, ToolName};

/// Whether the tool's own server is known to have the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Another tool that is routed there loses these routes.
    Proven,
    /// An address that another tool is routed to is refused.
    Unproven,
}

/// The outcome of a registration or a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The route exists.
    Done {
        /// Another tool that was routed to the same address, and lost these routes.
        evicted: Option<String>,
        /// The pattern had no route, or another one.
        is_new: bool,
    },
    /// Refused: the tool already has [`MAX_ROUTES`] patterns.
    TooManyPatterns,
    /// Refused: this other tool is routed to the address.
    AddressHeld(String),
    /// Refused: the pattern has another route by now. Only for a renewal.
    Superseded,
}

impl FromRedisValue for Registration {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let words = Vec::<Vec<u8>>::from_redis_value(value)?;
        let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["done", kind @ ("new" | "same")] => Ok(Self::Done { evicted: None, is_new: kind == "new" }),
            ["done", kind @ ("new" | "same"), evicted] => {
                Ok(Self::Done { evicted: Some(evicted.into()), is_new: kind == "new" })
            }
            ["full"] => Ok(Self::TooManyPatterns),
            ["held", holder] => Ok(Self::AddressHeld(holder.into())),
            ["superseded"] => Ok(Self::Superseded),
            _ => Err(format!("unexpected reply {words:?} to a registration").into()),
        }
    }
}

/// The outcome of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// The route was removed, with its redirect.
    Removed,
    /// There is no such route.
    Absent,
    /// The route does not meet the condition, and stays.
    Kept,
}

impl FromRedisValue for Withdrawal {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        match &*String::from_redis_value(value)? {
            "removed" => Ok(Self::Removed),
            "absent" => Ok(Self::Absent),
            "kept" => Ok(Self::Kept),
            other => Err(format!("unexpected reply {other:?} to a withdrawal").into()),
        }
    }
}

/// ARGV: tool, pattern, URL, origin, canonical host or nothing, most patterns, "proven" or not, "renew" or not. A key of the wrong
/// type is an error before anything is written.
static REGISTER: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local tool, pattern, url = ARGV[1], ARGV[2], ARGV[3]
        local before = redis.call('HGET', KEYS[1], pattern)
        local origin = redis.call('HGET', KEYS[2], pattern)
        local canonical = redis.call('HGET', KEYS[3], pattern)
        if not before and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then return {'full'} end
        local is_renewal = ARGV[8] == 'renew'
        local is_same = before == url or before and normal_url(before) == url
        if is_renewal and before and not is_same then return {'superseded'} end
        local address = address_of(url)
        local is_held, holder, patterns = holder_of(address, tool)
        if holder then
            if ARGV[7] ~= 'proven' then return {'held', holder} end
            evict(holder, patterns, address)
        end
        if not (is_renewal and is_same and before == url) then redis.call('HSET', KEYS[1], pattern, url) end
        if not (is_renewal and is_same and origin) then redis.call('HSET', KEYS[2], pattern, ARGV[4]) end
        if ARGV[5] == '' then
            if canonical then redis.call('HDEL', KEYS[3], pattern) end
        elseif canonical ~= ARGV[5] then
            redis.call('HSET', KEYS[3], pattern, ARGV[5])
        end
        if not is_same then release(before, tool) end
        if not is_held then hold(address, tool) end
        return {'done', is_same and 'same' or 'new', holder}",
    )
});

/// Sets one route of a tool, its origin and its canonical host (`None` for no redirect). Atomic.
///
/// # Errors
/// None in practice: an [`Origin`] that cannot be encoded.
pub fn register(
    tool: &ToolName,
    pattern: &Pattern,
    backend: &Backend,
    canonical: Option<&str>,
    origin: &Origin,
    ownership: Ownership,
) -> Result<Call<Registration>, serde_json::Error> {
    registering(tool, pattern, backend, canonical, origin, ownership, "")
}

/// The same for a server that is proven to be the tool's own, unless the pattern has another route by now. Writes nothing for an
/// unchanged route, so that its origin stays and no proxy is notified.
///
/// # Errors
/// None in practice: an [`Origin`] that cannot be encoded.
pub fn renew(
    tool: &ToolName,
    pattern: &Pattern,
    backend: &Backend,
    canonical: Option<&str>,
    origin: &Origin,
) -> Result<Call<Registration>, serde_json::Error> {
    registering(tool, pattern, backend, canonical, origin, Ownership::Proven, "renew")
}

fn registering(
    tool: &ToolName,
    pattern: &Pattern,
    backend: &Backend,
    canonical: Option<&str>,
    origin: &Origin,
    ownership: Ownership,
    kind: &str,
) -> Result<Call<Registration>, serde_json::Error> {
    let (url, origin, most) = (backend.to_string(), serde_json::to_string(origin)?, MAX_ROUTES.to_string());
    let ownership = if ownership == Ownership::Proven { "proven" } else { "" };
    let args = [pattern.as_str(), &url, &origin, canonical.unwrap_or_default(), &most, ownership, kind];
    Ok(on_routes_of(&REGISTER, tool, &args))
}

/// ARGV: tool, pattern, then hosts as in origins.
static UNREGISTER_IF_FROM: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local tool, pattern = ARGV[1], ARGV[2]
        local function is_callers(host)
            for index = 3, #ARGV do
                if host == ARGV[index] or host == '[' .. ARGV[index] .. ']' then return true end
            end
            return false
        end
        local url = redis.call('HGET', KEYS[1], pattern)
        local origin = redis.call('HGET', KEYS[2], pattern)
        if url then
            local read, entry = pcall(cjson.decode, origin or '')
            if not read or type(entry) ~= 'table' then entry = {} end
            local host = normal_url(url):match('^https?://(.*):%d+$')
            local agrees = host == entry.host or type(entry.host) == 'string' and host == '[' .. entry.host .. ']'
            if type(entry.destination) == 'string' then agrees = normal_url(url) == entry.destination end
            if agrees then host = entry.host end
            local is_name = host and not host:match('^%[') and not host:match('^[%d.]+$')
            if (origin or not is_name) and not is_callers(host) then return 'kept' end
        end
        for _, key in ipairs(KEYS) do redis.call('HDEL', key, pattern) end
        if not url then return 'absent' end
        release(url, tool)
        return 'removed'",
    )
});

/// Removes one route of a tool with its redirect if it was registered from one of `hosts`, the addresses of one host. If its
/// origin is missing or does not fit the route, an old writer wrote the route, and the URL's host decides. A route to a name
/// without an origin may be removed from any host, as before. Atomic.
pub fn unregister_if_from(tool: &ToolName, pattern: &str, hosts: &[IpAddr]) -> Call<Withdrawal> {
    // An earlier version may have written either form.
    let mapped = |host: &IpAddr| match host {
        IpAddr::V4(host) => Some(host.to_ipv6_mapped().to_string()),
        IpAddr::V6(_) => None,
    };
    let texts: Vec<String> = hosts.iter().map(IpAddr::to_string).chain(hosts.iter().filter_map(mapped)).collect();
    let args: Vec<&str> = [pattern].into_iter().chain(texts.iter().map(String::as_str)).collect();
    on_routes_of(&UNREGISTER_IF_FROM, tool, &args)
}

/// ARGV: tool, pattern, URL.
static UNREGISTER_URL: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local url = redis.call('HGET', KEYS[1], ARGV[2])
        if not url then return 'absent' end
        if normal_url(url) ~= ARGV[3] then return 'kept' end
        for _, key in ipairs(KEYS) do redis.call('HDEL', key, ARGV[2]) end
        release(url, ARGV[1])
        return 'removed'",
    )
});

/// Removes one route of a tool with its redirect if it leads to this backend. Atomic.
pub fn unregister_url(tool: &ToolName, pattern: &str, backend: &Backend) -> Call<Withdrawal> {
    on_routes_of(&UNREGISTER_URL, tool, &[pattern, &backend.to_string()])
}

/// ARGV: tool, pattern, URL, origin or nothing.
static WITHDRAW_IF_UNCHANGED: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local url = redis.call('HGET', KEYS[1], ARGV[2])
        if not url then return 'absent' end
        if url ~= ARGV[3] or (redis.call('HGET', KEYS[2], ARGV[2]) or '') ~= ARGV[4] then return 'kept' end
        for _, key in ipairs(KEYS) do redis.call('HDEL', key, ARGV[2]) end
        release(url, ARGV[1])
        return 'removed'",
    )
});

/// Removes a route with its redirect if neither it nor its origin has changed since they were read. Atomic.
pub fn withdraw_if_unchanged(route: &GridRoute) -> Call<Withdrawal> {
    on_routes_of(&WITHDRAW_IF_UNCHANGED, &route.tool, &[&route.pattern, &route.url, &route.origin])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let read =
            |words: &[&str]| Registration::from_redis_value(Value::Array(words.iter().copied().map(bulk).collect()));
        assert_eq!(read(&["done", "same"]), Ok(Registration::Done { evicted: None, is_new: false }));
        assert_eq!(read(&["done", "new", "a"]), Ok(Registration::Done { evicted: Some("a".into()), is_new: true }));
        assert!(read(&["done"]).is_err() && read(&["done", "a"]).is_err());
        assert_eq!(read(&["held", "a"]), Ok(Registration::AddressHeld("a".into())));
        assert_eq!(read(&["full"]), Ok(Registration::TooManyPatterns));
        assert_eq!(read(&["superseded"]), Ok(Registration::Superseded));
        assert!(read(&["held"]).is_err() && read(&["other"]).is_err() && read(&[]).is_err());
        for (text, want) in
            [("removed", Withdrawal::Removed), ("absent", Withdrawal::Absent), ("kept", Withdrawal::Kept)]
        {
            assert_eq!(Withdrawal::from_redis_value(bulk(text)), Ok(want));
        }
    }
}
