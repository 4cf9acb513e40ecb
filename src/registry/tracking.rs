//! Client-side tracking: Redis pushes the names of changed keys.

use redis::Cmd;

/// Asks Redis to push the names of changed keys with this prefix, on a RESP3 connection. Writes of the same connection are not
/// pushed, except those of scripts.
pub fn track_keys(prefix: &str) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg(&["TRACKING", "ON", "BCAST", "PREFIX", prefix, "NOLOOP"]);
    command
}
