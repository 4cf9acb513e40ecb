//! Names of keys. Unchanged from the old stack, so that old and new writers can share one Redis.

/// What the key of each tool's routes begins with.
pub const ROUTES_PREFIX: &str = "prefix:";
/// What the key of each tool's origins begins with.
pub const ORIGIN_PREFIX: &str = "origin:";
const REDIRECTS_PREFIX: &str = "redirect:";

/// The key of a tool's routes.
pub fn routes_key(tool: &[u8]) -> Vec<u8> {
    [ROUTES_PREFIX.as_bytes(), tool].concat()
}

/// The key of what is known about who registered a tool's routes.
pub fn origin_key(tool: &[u8]) -> Vec<u8> {
    [ORIGIN_PREFIX.as_bytes(), tool].concat()
}

/// The key of a tool's canonical hosts.
pub fn redirects_key(tool: &[u8]) -> Vec<u8> {
    [REDIRECTS_PREFIX.as_bytes(), tool].concat()
}

/// The tool whose routes a key holds; `None` for any other key.
pub fn tool_of(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(ROUTES_PREFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_tool() {
        assert_eq!(tool_of(&routes_key(b"hello")), Some(&b"hello"[..]));
        assert_eq!(tool_of(b"prefix:"), Some(&b""[..]));
        assert_eq!(tool_of(&redirects_key(b"hello")), None);
    }
}
