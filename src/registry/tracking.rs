//! Client-side tracking: Redis pushes the names of keys that are written.

use redis::Cmd;

/// Has Redis push the names of all keys with this prefix that are written, on a connection that speaks RESP3. What the connection
/// writes itself is not pushed, scripts excepted.
pub fn track_keys(prefix: &str) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg(&["TRACKING", "ON", "BCAST", "PREFIX", prefix, "NOLOOP"]);
    command
}
