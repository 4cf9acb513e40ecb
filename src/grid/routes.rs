//! Reading back what jobs have registered.

use std::collections::{BTreeSet, HashMap};

use crate::daemon::{Reading, Store, StoreError};
use crate::registry::{self, GridRoute, ORIGIN_PREFIX};
use crate::route::ToolName;

/// Keys that one step of a scan looks at.
const SCAN_COUNT: usize = 1000;

/// All tools of which somebody says that he registered a route.
///
/// # Errors
/// Those of [`Store::commit`].
pub async fn registered_tools(store: &Store) -> Result<BTreeSet<ToolName>, StoreError> {
    let mut tools = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{ORIGIN_PREFIX}*")).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (u64, Vec<Vec<u8>>) = store.commit(&Reading::new(scan)).await?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(ORIGIN_PREFIX.as_bytes()));
        tools.extend(names.filter_map(|name| ToolName::try_new(name).ok()));
        cursor = next;
        if cursor == 0 {
            return Ok(tools);
        }
    }
}

/// Those of a tool's routes that proxylistener wrote; none when its keys are no hashes.
///
/// # Errors
/// Those of [`Store::commit`].
pub async fn grid_routes(store: &Store, tool: ToolName) -> Result<Vec<GridRoute>, StoreError> {
    let (routes, origins) =
        (hash(store, registry::routes_key(tool.as_bytes())), hash(store, registry::origin_key(tool.as_bytes())));
    match (routes.await, origins.await) {
        (Ok(routes), Ok(origins)) => Ok(registry::grid_routes(&tool, &routes, origins)),
        (Err(StoreError::Redis(error)), _) | (_, Err(StoreError::Redis(error)))
            if error.code() == Some("WRONGTYPE") =>
        {
            Ok(Vec::new())
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

async fn hash(store: &Store, key: Vec<u8>) -> Result<HashMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut command = redis::cmd("HGETALL");
    command.arg(key);
    store.commit(&Reading::new(command)).await
}
