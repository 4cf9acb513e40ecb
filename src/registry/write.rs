//! Writing routes: transactions to be run on any connection, blocking or not.

use std::net::IpAddr;

use redis::{Cmd, Pipeline};

use super::origin::{GridRoute, Origin};
use super::schema::{origin_key, redirects_key, routes_key};
use crate::route::{Backend, MAX_ROUTES, Pattern, ToolName};

/// A function for scripts: a backend's URL in its normal form, as [`Backend`] shows it, from what one of the old stack's writers
/// wrote. Other text stays as it is.
pub(super) const NORMAL_URL: &str = "
        local function normal_url(url)
            local scheme, rest = url:lower():match('^(https?)://(.-)/?$')
            if not scheme then return url end
            local host, port = rest:match('^(.*):(%d+)$')
            if not host then host, port = rest, scheme == 'https' and '443' or '80' end
            return scheme .. '://' .. host .. ':' .. port:gsub('^0+', '')
        end";

/// Sets one route of a tool, who it comes from, and where its requests are redirected to (`None`: nowhere), in one step.
/// Answers with a `bool`: false when the tool has [`MAX_ROUTES`] others already, and nothing was done. A key of another type
/// is an error before anything is written.
///
/// # Errors
/// None in practice: an [`Origin`] that can't be JSON.
pub fn register(
    tool: &ToolName,
    pattern: &Pattern,
    backend: &Backend,
    canonical: Option<&str>,
    origin: &Origin,
) -> Result<Cmd, serde_json::Error> {
    const SCRIPT: &str = "
        local known = redis.call('HEXISTS', KEYS[1], ARGV[1])
        if known == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
        redis.call('HLEN', KEYS[2])
        redis.call('HLEN', KEYS[3])
        redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
        redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
        if ARGV[4] == '' then
            redis.call('HDEL', KEYS[3], ARGV[1])
        else
            redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
        end
        return 1";
    let mut command = on_routes_of(SCRIPT, tool);
    command.arg(pattern.as_str()).arg(backend.to_string()).arg(serde_json::to_string(origin)?);
    command.arg(canonical.unwrap_or_default()).arg(MAX_ROUTES);
    Ok(command)
}

/// Removes one route of a tool with its redirect if it was registered from `host`, or by nobody known. In one step:
/// comparing and deleting is one script. Answers with a `bool`: false when the route is another host's, and stays; also when
/// somebody has written another destination over it without saying so, as the old stack's writers do.
pub fn unregister_if_from(tool: &ToolName, pattern: &str, host: IpAddr) -> Cmd {
    const SCRIPT: &str = "
        local origin = redis.call('HGET', KEYS[2], ARGV[1])
        local url = redis.call('HGET', KEYS[1], ARGV[1])
        if origin and url then
            local read, entry = pcall(cjson.decode, origin)
            if not read or type(entry) ~= 'table' or entry.host ~= ARGV[2] then return 0 end
            url = normal_url(url)
            local is_own = url:match('^https?://(.*):%d+$') == ARGV[3]
            if type(entry.destination) == 'string' then is_own = url == entry.destination end
            if not is_own then return 0 end
        end
        for _, key in ipairs(KEYS) do redis.call('HDEL', key, ARGV[1]) end
        return 1";
    let in_url = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
    let mut command = on_routes_of(&format!("{NORMAL_URL}{SCRIPT}"), tool);
    command.arg(pattern).arg(host.to_string()).arg(in_url);
    command
}

/// A script whose keys are the tool's routes, origins and redirects.
fn on_routes_of(script: &str, tool: &ToolName) -> Cmd {
    let tool = tool.as_bytes();
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(3).arg(routes_key(tool)).arg(origin_key(tool)).arg(redirects_key(tool));
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
    let mut command = on_routes_of(SCRIPT, &route.tool);
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
