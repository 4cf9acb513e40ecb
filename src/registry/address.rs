//! The index of addresses, kept right: old writers change routes and leave it as it is.

use std::sync::LazyLock;

use redis::Script;

use super::origin::GridRoute;
use super::schema::ADDRESSES_KEY;
use super::script::{Call, on_routes_of, with_functions};
use super::write::{Ownership, Registration};
use crate::route::ToolName;

/// ARGV: tool, pattern, URL, "proven" or not.
static HOLD_ADDRESS: LazyLock<Script> = LazyLock::new(|| {
    with_functions(
        "
        local tool, url = ARGV[1], ARGV[3]
        local address = address_of(url)
        if not address or redis.call('HGET', KEYS[1], ARGV[2]) ~= url then return {'superseded'} end
        local is_held, holder, patterns = holder_of(address, tool)
        if holder then
            if ARGV[4] ~= 'proven' then return {'held', holder} end
            evict(holder, patterns, address)
        end
        if not is_held then hold(address, tool) end
        return {'done', 'same', holder}",
    )
});

/// Notes that the route's tool is routed to its address, if the route is still there. Another tool that the index names and
/// that is routed there loses those routes if the tool is [proven](Ownership::Proven) to own the address, and keeps the address
/// if not. In one step.
pub fn index_address(route: &GridRoute, ownership: Ownership) -> Call<Registration> {
    let ownership = if ownership == Ownership::Proven { "proven" } else { "" };
    on_routes_of(&HOLD_ADDRESS, &route.tool, &[&route.pattern, &route.url, ownership])
}

/// ARGV: tool, address.
static RELEASE_ADDRESS: LazyLock<Script> = LazyLock::new(|| {
    with_functions(&format!(
        "
        local tool, address = ARGV[1], ARGV[2]
        if redis.call('HGET', '{ADDRESSES_KEY}', address) ~= tool or #patterns_at(address, tool) > 0 then return 0 end
        return redis.call('HDEL', '{ADDRESSES_KEY}', address)"
    ))
});

/// Removes what the index says about an address, a `host:port`, if the tool that it names is not routed there. In one step.
pub fn unindex_address(tool: &ToolName, address: &str) -> Call<bool> {
    on_routes_of(&RELEASE_ADDRESS, tool, &[address])
}
