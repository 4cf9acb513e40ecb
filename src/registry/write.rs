//! Writing routes: transactions to be run on any connection, blocking or not.

use redis::{Cmd, Pipeline};

use super::origin::{GridRoute, Origin};
use super::schema::{origin_key, redirects_key, routes_key};
use crate::route::{Backend, Pattern, ToolName};

/// Sets one route of a tool, and who it comes from, in one transaction.
///
/// # Errors
/// None in practice: an [`Origin`] that can't be JSON.
pub fn register(
    tool: &ToolName,
    pattern: &Pattern,
    backend: &Backend,
    origin: &Origin,
) -> Result<Pipeline, serde_json::Error> {
    let mut transaction = redis::pipe();
    transaction
        .atomic()
        .hset(routes_key(tool.as_bytes()), pattern.as_str(), backend.to_string())
        .ignore()
        .hset(origin_key(tool.as_bytes()), pattern.as_str(), serde_json::to_string(origin)?)
        .ignore();
    Ok(transaction)
}

/// Adds to the transaction of [`register`] that the pattern's requests are redirected to `host`.
pub fn set_canonical(transaction: &mut Pipeline, tool: &ToolName, pattern: &Pattern, host: &str) {
    transaction.hset(redirects_key(tool.as_bytes()), pattern.as_str(), host).ignore();
}

/// Adds to the transaction of [`register`] that the pattern's requests are redirected nowhere.
pub fn forget_canonical(transaction: &mut Pipeline, tool: &ToolName, pattern: &Pattern) {
    transaction.hdel(redirects_key(tool.as_bytes()), pattern.as_str()).ignore();
}

/// Removes one route of a tool with its redirect if it was registered from `host`, or by nobody known. In one step:
/// comparing and deleting is one script. Answers with a `bool`: false when the route is another host's, and stays.
pub fn unregister_if_from(tool: &ToolName, pattern: &Pattern, host: &str) -> Cmd {
    const SCRIPT: &str = "
        local origin = redis.call('HGET', KEYS[2], ARGV[1])
        if origin then
            local read, entry = pcall(cjson.decode, origin)
            if not read or type(entry) ~= 'table' or entry.host ~= ARGV[2] then return 0 end
        end
        for _, key in ipairs(KEYS) do redis.call('HDEL', key, ARGV[1]) end
        return 1";
    let mut command = redis::cmd("EVAL");
    command
        .arg(SCRIPT)
        .arg(3)
        .arg(routes_key(tool.as_bytes()))
        .arg(origin_key(tool.as_bytes()))
        .arg(redirects_key(tool.as_bytes()))
        .arg(pattern.as_str())
        .arg(host);
    command
}

/// Removes a route with its redirect if neither it nor its origin have changed since they were read. Answers with a
/// `bool`: false when they have.
pub fn withdraw_if_unchanged(route: &GridRoute) -> Cmd {
    const SCRIPT: &str = "
        for index = 1, 2 do
            if redis.call('HGET', KEYS[index], ARGV[1]) ~= ARGV[index + 1] then return 0 end
        end
        for _, key in ipairs(KEYS) do redis.call('HDEL', key, ARGV[1]) end
        return 1";
    let tool = route.tool.as_bytes();
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(3).arg(routes_key(tool)).arg(origin_key(tool)).arg(redirects_key(tool));
    command.arg(&route.pattern).arg(&route.url).arg(&route.origin);
    command
}

/// Removes one route of a tool, whoever set it, in one transaction.
pub fn unregister(tool: &ToolName, pattern: &str) -> Pipeline {
    let mut transaction = redis::pipe();
    transaction
        .atomic()
        .hdel(routes_key(tool.as_bytes()), pattern)
        .ignore()
        .hdel(origin_key(tool.as_bytes()), pattern)
        .ignore();
    transaction
}
