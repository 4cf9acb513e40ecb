//! Repairs the address index: old writers change routes and do not update it.

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

/// Enters a route's address and tool into the index, if the route still exists. If another tool has the address and is routed
/// there, it loses these routes to a tool that is [proven](Ownership::Proven) to own the address, and keeps the address
/// otherwise. Atomic.
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

/// Removes an address, `host:port`, from the index if this tool has it there and is not routed to it. Atomic.
pub fn unindex_address(tool: &ToolName, address: &str) -> Call<bool> {
    on_routes_of(&RELEASE_ADDRESS, tool, &[address])
}
