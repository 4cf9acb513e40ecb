//! An operator's writes, which need no proof of ownership: urlproxyctl's.

use std::sync::LazyLock;

use redis::{Cmd, FromRedisValue, ParsingError, Script, Value};

use super::schema::redirects_key;
use super::script::{Call, on_routes_of, with_functions};
use super::write::Withdrawal;
use crate::route::{Backend, ToolName};

/// urlproxyctl's name in origins.
pub const OPERATOR: &str = "urlproxyctl";

/// ARGV: tool, pattern. A set has the pattern `.*`.
static DELETE_ROUTE: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local tool, pattern = ARGV[1], ARGV[2]
        local kind = redis.call('TYPE', KEYS[1]).ok
        local url, removed = nil, 0
        if kind == 'hash' then
            url = redis.call('HGET', KEYS[1], pattern)
            removed = redis.call('HDEL', KEYS[1], pattern)
        elseif kind == 'set' and pattern == '.*' then
            removed = redis.call('DEL', KEYS[1])
        end
        for index = 2, 3 do
            local gone = redis.pcall('HDEL', KEYS[index], pattern)
            if index == 3 and type(gone) == 'number' then removed = removed + gone end
        end
        if removed == 0 then return 'absent' end
        release(url, tool)
        return 'removed'",
    )
});

/// Removes one route of a tool with its redirect, whoever registered it. Atomic.
pub fn delete_route(tool: &ToolName, pattern: &str) -> Call<Withdrawal> {
    on_routes_of(&DELETE_ROUTE, tool, &[pattern])
}

/// ARGV: tool.
static DELETE_TOOL: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local urls = redis.pcall('HVALS', KEYS[1])
        local removed = redis.call('DEL', KEYS[1], KEYS[3])
        redis.call('DEL', KEYS[2])
        for _, url in ipairs(urls) do release(url, ARGV[1]) end
        return removed > 0 and 'removed' or 'absent'",
    )
});

/// Removes all routes of a tool with their redirects, whoever registered them, whatever type the key has. Atomic.
pub fn delete_tool(tool: &ToolName) -> Call<Withdrawal> {
    on_routes_of(&DELETE_TOOL, tool, &[])
}

/// A tool's routes were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced;

impl FromRedisValue for Replaced {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        u64::from_redis_value(value).map(|_| Self)
    }
}

/// ARGV: tool, URLs.
static REPLACE_WITH_SET: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local urls = redis.pcall('HVALS', KEYS[1])
        redis.call('DEL', KEYS[1], KEYS[2])
        local added = redis.call('SADD', KEYS[1], unpack(ARGV, 2))
        for _, url in ipairs(urls) do release(url, ARGV[1]) end
        return added",
    )
});

/// Replaces all routes of a tool by one with several backends for every path, which only a set can be. Keeps redirects. Atomic.
pub fn replace_with_set(tool: &ToolName, backends: &[Backend]) -> Call<Replaced> {
    let urls: Vec<String> = backends.iter().map(Backend::to_string).collect();
    on_routes_of(&REPLACE_WITH_SET, tool, &urls.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Deletes the canonical host of a tool's pattern.
pub fn delete_redirect(tool: &ToolName, pattern: &str) -> Cmd {
    let mut command = redis::cmd("HDEL");
    command.arg(redirects_key(tool.as_bytes())).arg(pattern);
    command
}

/// Sets the canonical host of a tool's pattern that need not have a route.
pub fn set_redirect(tool: &ToolName, pattern: &str, host: &str) -> Cmd {
    let mut command = redis::cmd("HSET");
    command.arg(redirects_key(tool.as_bytes())).arg(pattern).arg(host);
    command
}
