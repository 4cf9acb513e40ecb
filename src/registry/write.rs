//! Writing routes: transactions to be run on any connection, blocking or not.

use redis::Pipeline;

use super::origin::Origin;
use super::schema::{origin_key, routes_key};
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
