//! Lua scripts that run in Redis: sent by hash, and as text only to a server that does not have them yet.

use std::marker::PhantomData;

#[cfg(feature = "daemons")]
use redis::aio::ConnectionLike;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};

use super::schema::{
    ADDRESSES_KEY, ORIGIN_PREFIX, REDIRECTS_PREFIX, ROUTES_PREFIX, origin_key, redirects_key, routes_key,
};
use crate::route::ToolName;

/// One call of a script that replies with a `T`.
#[derive(Debug)]
pub struct Call<T> {
    invocation: ScriptInvocation<'static>,
    reply: PhantomData<fn() -> T>,
}

impl<T: FromRedisValue> Call<T> {
    /// Runs the script.
    ///
    /// # Errors
    /// Those of Redis, among them a key of the wrong type.
    pub fn invoke(&self, connection: &mut impl redis::ConnectionLike) -> RedisResult<T> {
        self.invocation.invoke(connection)
    }

    /// Runs the script.
    ///
    /// # Errors
    /// Those of Redis, among them a key of the wrong type.
    #[cfg(feature = "daemons")]
    pub async fn invoke_async(&self, connection: &mut impl ConnectionLike) -> RedisResult<T> {
        self.invocation.invoke_async(connection).await
    }
}

/// A call with these keys and arguments.
pub(super) fn call<T>(script: &'static Script, keys: &[&str], args: &[&str]) -> Call<T> {
    let mut invocation = script.prepare_invoke();
    invocation.key(keys).arg(args);
    Call { invocation, reply: PhantomData }
}

/// A call with the keys of a tool's routes, origins and redirects, and the tool and these arguments.
pub(super) fn on_routes_of<T>(script: &'static Script, tool: &ToolName, args: &[&str]) -> Call<T> {
    let tool = tool.as_bytes();
    let mut invocation = script.prepare_invoke();
    invocation.key(routes_key(tool)).key(origin_key(tool)).key(redirects_key(tool));
    invocation.arg(tool).arg(args);
    Call { invocation, reply: PhantomData }
}

/// A script with these functions:
///
/// - `normal_url(url)`: normalizes a backend's URL of an old writer, as [`crate::route::Backend`] shows it. Returns other text
///   unchanged.
/// - `address_of(url)`: the URL's `host:port`, or nil.
/// - `patterns_at(address, tool)`: the tool's patterns that lead to the address.
/// - `holder_of(address, tool)`: true if the index has the tool at the address; else false, and the other tool that is routed
///   there with its patterns, or nil.
/// - `evict(holder, patterns, address)`: removes these patterns of the tool, and the index entry.
/// - `hold(address, tool)`: sets the index entry.
/// - `release(url, tool)`: removes the index entry after a route to the URL was removed or changed, unless another pattern of the
///   tool leads there.
pub(super) fn with_functions(text: &str) -> Script {
    let functions = FUNCTIONS
        .replace("ROUTES_PREFIX", ROUTES_PREFIX)
        .replace("ORIGIN_PREFIX", ORIGIN_PREFIX)
        .replace("REDIRECTS_PREFIX", REDIRECTS_PREFIX)
        .replace("ADDRESSES_KEY", ADDRESSES_KEY);
    Script::new(&format!("{functions}{text}"))
}

// `addresses` may have the wrong type by mistake: then it counts as empty, and nothing is written to it.
const FUNCTIONS: &str = "
        local function normal_url(url)
            local scheme, rest = url:lower():match('^(https?)://(.-)/?$')
            if not scheme then return url end
            local host, port = rest:match('^(.*):(%d+)$')
            if not host then host, port = rest, scheme == 'https' and '443' or '80' end
            return scheme .. '://' .. host .. ':' .. port:gsub('^0+', '')
        end
        local function address_of(url) return normal_url(url):match('^https?://(.+)$') end
        local function patterns_at(address, tool)
            local patterns = {}
            local host = address:match('^(.*):%d+$') or address
            local routes = redis.pcall('HGETALL', 'ROUTES_PREFIX' .. tool)
            for index = 1, #routes, 2 do
                local url = routes[index + 1]
                if url:lower():find(host, 1, true) and address_of(url) == address then
                    patterns[#patterns + 1] = routes[index]
                end
            end
            return patterns
        end
        local function holder_of(address, tool)
            local holder = redis.pcall('HGET', 'ADDRESSES_KEY', address)
            if holder == tool then return true end
            if type(holder) ~= 'string' then return false end
            local patterns = patterns_at(address, holder)
            if #patterns == 0 then return false end
            return false, holder, patterns
        end
        local function evict(holder, patterns, address)
            for _, pattern in ipairs(patterns) do
                for _, prefix in ipairs({'ROUTES_PREFIX', 'ORIGIN_PREFIX', 'REDIRECTS_PREFIX'}) do
                    redis.pcall('HDEL', prefix .. holder, pattern)
                end
            end
            redis.pcall('HDEL', 'ADDRESSES_KEY', address)
        end
        local function hold(address, tool) redis.pcall('HSET', 'ADDRESSES_KEY', address, tool) end
        local function release(url, tool)
            local address = url and address_of(url)
            if address and redis.pcall('HGET', 'ADDRESSES_KEY', address) == tool and #patterns_at(address, tool) == 0 then
                redis.pcall('HDEL', 'ADDRESSES_KEY', address)
            end
        end";
