//! Reads all tools' routes from Redis, in few round trips.

use std::collections::{BTreeSet, HashMap, HashSet};

use redis::RedisResult;

use crate::daemon::{Reading, Store, StoreError, is_wrong_type};
use crate::registry::{self, ADDRESSES_KEY, GridRoute, ROUTES_PREFIX, Registered, SERVICES_KEY};
use crate::route::{Backend, ToolName};

/// Keys per step of a scan.
const SCAN_COUNT: usize = 1000;
/// Tools per round trip, with two keys each.
const TOOLS_AT_ONCE: usize = 250;

type Hash = HashMap<Vec<u8>, Vec<u8>>;

/// Routes in Redis. Not a consistent snapshot: they are read over some time.
#[derive(Debug, Default)]
pub struct StoredRoutes {
    /// Routes that grid jobs registered.
    pub grid: Vec<GridRoute>,
    /// The tools routed to each `host:port`, by any writer.
    pub tools_at: HashMap<String, BTreeSet<ToolName>>,
    /// The address index: `host:port` to tool.
    pub index: HashMap<String, String>,
}

/// A backend's address as in the index, `host:port`.
pub fn address_of(backend: &Backend) -> String {
    format!("{}:{}", backend.host, backend.port)
}

/// Reads everything. Skips keys of another type.
///
/// # Errors
/// Those of [`Store::commit`].
pub async fn read_stored_routes(store: &Store) -> Result<StoredRoutes, StoreError> {
    let mut members = redis::cmd("SMEMBERS");
    members.arg(SERVICES_KEY);
    let members: Vec<Vec<u8>> = unless_another_type(store.commit(&Reading::new(members)).await)?;
    let members = members.iter().filter_map(|member| Registered::parse(str::from_utf8(member).ok()?));
    let services: HashSet<(String, String)> = members.map(|service| (service.name, service.pattern)).collect();
    let mut stored = StoredRoutes { index: index(store).await?, ..StoredRoutes::default() };
    let tools: Vec<ToolName> = tools(store).await?.into_iter().collect();
    for tools in tools.chunks(TOOLS_AT_ONCE) {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for tool in tools {
            let tool = tool.as_bytes();
            pipeline.hgetall(registry::routes_key(tool)).hgetall(registry::origin_key(tool));
        }
        let replies: Vec<RedisResult<Hash>> = store.commit(&Reading::new(pipeline)).await?;
        let mut replies = replies.into_iter().map(|reply| unless_another_type(reply.map_err(StoreError::from)));
        for tool in tools {
            let (Some(routes), Some(origins)) = (replies.next(), replies.next()) else { break };
            let (routes, origins) = (routes?, origins?);
            let backends = routes.values().filter_map(|url| str::from_utf8(url).ok()?.parse::<Backend>().ok());
            for address in backends.map(|backend| address_of(&backend)) {
                stored.tools_at.entry(address).or_default().insert(tool.clone());
            }
            let is_clusters = |pattern: &str| services.contains(&(tool.as_str().to_owned(), pattern.to_owned()));
            stored.grid.extend(registry::grid_routes(tool, routes, &origins, is_clusters));
        }
    }
    Ok(stored)
}

/// All tools that have routes.
async fn tools(store: &Store) -> Result<BTreeSet<ToolName>, StoreError> {
    let mut tools = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{ROUTES_PREFIX}*")).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (u64, Vec<Vec<u8>>) = store.commit(&Reading::new(scan)).await?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(ROUTES_PREFIX.as_bytes()));
        tools.extend(names.filter_map(|name| ToolName::try_new(name).ok()));
        cursor = next;
        if cursor == 0 {
            return Ok(tools);
        }
    }
}

async fn index(store: &Store) -> Result<HashMap<String, String>, StoreError> {
    let mut index = HashMap::new();
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(ADDRESSES_KEY).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
        let read: Result<(u64, Hash), _> = store.commit(&Reading::new(scan)).await;
        let (next, fields) = unless_another_type(read)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        index.extend(fields.iter().map(|(address, tool)| (text(address), text(tool))));
        cursor = next;
        if cursor == 0 {
            return Ok(index);
        }
    }
}

fn unless_another_type<T: Default>(reply: Result<T, StoreError>) -> Result<T, StoreError> {
    match reply {
        Err(StoreError::Redis(error)) if is_wrong_type(&error) => Ok(T::default()),
        reply => reply,
    }
}
