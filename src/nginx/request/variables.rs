//! `$urlproxy_tool`, `$urlproxy_domain`, `$urlproxy_backend`, `$urlproxy_scheme`, `$urlproxy_pattern`, `$urlproxy_result`.

use super::endpoint::Endpoint;
use super::resolve::resolve_for_variables;
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::variable::Variable;

/// All variables.
pub(in crate::nginx) static VARIABLES: [Variable; 6] = [
    Variable { name: "urlproxy_tool", read: |request| without_control(resolve_for_variables(request)?.tool) },
    Variable { name: "urlproxy_domain", read: |request| without_control(resolve_for_variables(request)?.domain) },
    Variable { name: "urlproxy_backend", read: backend },
    Variable { name: "urlproxy_scheme", read: |request| Some(endpoint(request)?.scheme.as_str().as_bytes()) },
    Variable { name: "urlproxy_pattern", read: |request| without_control(resolve_for_variables(request)?.pattern) },
    Variable { name: "urlproxy_result", read: result },
];

/// Hides a value with a control character, which could end a header line or a log line.
fn without_control(text: &[u8]) -> Option<&[u8]> {
    Some(text).filter(|text| !text.iter().any(u8::is_ascii_control))
}

fn endpoint<'r>(request: Request<'r>) -> Option<&'r Endpoint<'r>> {
    resolve_for_variables(request)?.endpoint(request)
}

fn backend<'r>(request: Request<'r>) -> Option<&'r [u8]> {
    let url = endpoint(request)?.to_string();
    request.pool().copy(url.as_bytes()).map(|url| &*url)
}

fn result<'r>(request: Request<'r>) -> Option<&'r [u8]> {
    Some(resolve_for_variables(request)?.outcome.result().as_str().as_bytes())
}
