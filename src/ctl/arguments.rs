//! Validates names, backends and hosts that operators give, by the rules of the module.

use crate::registry::Admission;
use crate::route::{Backend, Domain, Kind, RouteKey, ToolName};

/// A tool's name.
pub fn parse_tool(name: &str) -> Result<ToolName, String> {
    ToolName::try_new(name.as_bytes()).map_err(|error| error.to_string())
}

/// A backend that the module admits if `allow_backend` lists its network.
pub fn parse_backend(url: &str) -> Result<Backend, String> {
    let backend: Backend = url.parse().map_err(|error: crate::route::BackendError| error.to_string())?;
    Admission::default().check(&backend).map_err(|error| error.to_string())?;
    Ok(backend)
}

/// The canonical host of a tool, which must be able to have one.
pub fn parse_canonical(tool: &ToolName, host: &str) -> Result<Domain, String> {
    RouteKey::try_new(Kind::Redirect, tool.as_bytes()).map_err(|error| error.to_string())?;
    let domain = Domain::normalize(host).ok().filter(|domain| !domain.is_wildcard() && !domain.is_address());
    domain.ok_or_else(|| format!("invalid canonical host {host:?}, expected e.g. \"{tool}.toolforge.org\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_arguments_are_named_with_what_was_expected() {
        assert!(parse_tool("a/b").unwrap_err().contains("expected no slash"));
        assert!(parse_backend("http://h:1/x").unwrap_err().contains("expected scheme://host:port"));
        assert!(parse_backend("http://169.254.169.254:80").unwrap_err().contains("metadata"));
        let tool = parse_tool("hello").unwrap();
        assert_eq!(parse_canonical(&tool, "Hello.toolforge.org").unwrap().as_str(), "hello.toolforge.org");
        for host in ["", "*.a.org", "10.0.0.1", "a b", "http://a.org"] {
            assert!(parse_canonical(&tool, host).unwrap_err().contains("hello.toolforge.org"), "{host}");
        }
        assert!(
            parse_canonical(&parse_tool("a.b").unwrap(), "a.org").unwrap_err().contains("cannot have its own host")
        );
    }
}
