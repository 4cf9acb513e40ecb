//! Parses requests: path, body, token.

use hyper::header::{ACCEPT, AUTHORIZATION};
use hyper::{HeaderMap, Uri};
use serde_json::Value;

use super::api_error::ApiError;
use super::mapping::Mapping;
use crate::route::decode_one;

/// Path prefix of the old API, which old clients and the service catalog still use.
const OLD_MOUNT: &str = "/dynamicproxy-api";

/// A resource of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The API's description.
    OpenApi,
    /// All mappings of a project.
    Mappings { project: String },
    /// One mapping; `domain` as in the request.
    Mapping { project: String, domain: String },
}

impl Resource {
    /// Parses a path.
    ///
    /// # Errors
    /// An unknown path, or one that is not percent-encoded UTF-8.
    pub fn of(uri: &Uri) -> Result<Self, ApiError> {
        let path = uri.path();
        let path = path.strip_prefix(OLD_MOUNT).filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let segments: Vec<&str> = path.splitn(6, '/').collect();
        match segments[..] {
            ["", "openapi.json"] => Ok(Self::OpenApi),
            ["", "v1", project, "mapping"] if !project.is_empty() => Ok(Self::Mappings { project: decode(project)? }),
            ["", "v1", project, "mapping", domain] if !project.is_empty() && !domain.is_empty() => {
                Ok(Self::Mapping { project: decode(project)?, domain: decode(domain)? })
            }
            _ => Err(ApiError::NoSuchResource),
        }
    }

    /// The resource's methods, as in `Allow`.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::OpenApi => "GET, HEAD",
            Self::Mappings { .. } => "GET, HEAD, PUT",
            Self::Mapping { .. } => "GET, HEAD, POST, DELETE",
        }
    }
}

/// Percent-decodes one path segment; refuses invalid UTF-8 and control characters.
fn decode(segment: &str) -> Result<String, ApiError> {
    let (mut bytes, mut rest) = (Vec::with_capacity(segment.len()), segment.as_bytes());
    while !rest.is_empty() {
        let (byte, after) = decode_one(rest).ok_or(ApiError::Path)?;
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control)).ok_or(ApiError::Path)
}

/// Parses a body: JSON with `domain`, a string, and `backends`, an array of strings; ignores other members.
///
/// # Errors
/// Invalid JSON, or JSON of another form.
pub fn read_mapping(body: &[u8]) -> Result<Mapping, ApiError> {
    let json: Value = serde_json::from_slice(body).map_err(|error| ApiError::Json(error.to_string()))?;
    let domain = json.get("domain").and_then(Value::as_str).ok_or(ApiError::Format)?.to_owned();
    let backends = json.get("backends").and_then(Value::as_array).ok_or(ApiError::Format)?;
    let backends = backends.iter().map(|backend| backend.as_str().map(str::to_owned)).collect::<Option<_>>();
    Ok(Mapping { domain, backends: backends.ok_or(ApiError::Format)? })
}

/// The token in `Authorization: Bearer` (RFC 6750, section 2.1).
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether the client gets errors as problem details: it names a JSON type in `Accept`.
pub fn accepts_problem(headers: &HeaderMap) -> bool {
    let is_json = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = |parameter: &str| {
            let quality =
                parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")).and_then(|q| q.parse::<f32>().ok());
            quality == Some(0.0)
        };
        matches!(&*media_type, "application/json" | "application/problem+json") && !parts.any(is_refused)
    };
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(is_json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_path_and_any_body_is_parsed_or_refused(path in "/(dynamicproxy-api/)?(v1/)?[!-~]{0,40}", body in any::<Vec<u8>>()) {
            if let Ok(uri) = path.parse::<Uri>() {
                let refused = Resource::of(&uri).err().map(|error| error.status().as_u16());
                prop_assert!(matches!(refused, None | Some(400 | 404)), "{path}: {refused:?}");
            }
            prop_assert!(read_mapping(&body).is_err());
        }
    }

    fn of(path: &str) -> Result<Resource, String> {
        Resource::of(&path.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_are_parsed_segment_by_segment() {
        let mapping =
            |project: &str, domain: &str| Ok(Resource::Mapping { project: project.into(), domain: domain.into() });
        assert_eq!(of("/openapi.json?x=y"), Ok(Resource::OpenApi));
        assert_eq!(of("/dynamicproxy-api/openapi.json"), Ok(Resource::OpenApi));
        assert_eq!(of("/dynamicproxy-api/v1/a/mapping"), Ok(Resource::Mappings { project: "a".into() }));
        assert_eq!(of("/dynamicproxy-api/v1/a%2Fb/mapping/%2A.b.org"), mapping("a/b", "*.b.org"));
        for path in [
            "/dynamicproxy-api",
            "/dynamicproxy-api/",
            "/dynamicproxy-apiv1/a/mapping",
            "/dynamicproxy-api/dynamicproxy-api/v1/a/mapping",
            "/x/dynamicproxy-api/v1/a/mapping",
        ] {
            assert_eq!(of(path), Err("No such resource".into()), "{path}");
        }
        assert_eq!(of("/v1/a/mapping"), Ok(Resource::Mappings { project: "a".into() }));
        assert_eq!(of("/v1/a/mapping/b.org"), mapping("a", "b.org"));
        assert_eq!(of("/v1/a%2Fb/mapping/%2A.b.org"), mapping("a/b", "*.b.org"));
        assert_eq!(of("/v1/%C3%A9/mapping/b%25"), mapping("é", "b%"));
        for path in
            ["/", "/v1", "/v1//mapping", "/v1/a/mapping/", "/v1/a/mapping/b/", "/v1/a/mapping/b/c", "/v2/a/mapping"]
        {
            assert_eq!(of(path), Err("No such resource".into()), "{path}");
        }
        for segment in ["%", "%2", "%zz", "%+1", "%ff", "%C3", "%00", "%0a", "%7f", "%C2%80"] {
            assert_eq!(of(&format!("/v1/a/mapping/{segment}")), Err("Invalid path".into()), "{segment}");
        }
    }

    #[test]
    fn bodies_need_domain_and_backends() {
        let read = |body: &str| read_mapping(body.as_bytes()).map_err(|error| error.to_string());
        let mapping = Mapping { domain: "a".into(), backends: vec!["b".into()] };
        assert_eq!(read(r#"{"domain":"a","backends":["b"],"more":1}"#), Ok(mapping));
        for body in [
            "{}",
            "[]",
            "1",
            "null",
            r#""a""#,
            r#"["a",["b"]]"#,
            r#"{"domain":"a"}"#,
            r#"{"backends":["b"]}"#,
            r#"{"domain":1,"backends":["b"]}"#,
            r#"{"domain":"a","backends":"b"}"#,
            r#"{"domain":"a","backends":[1]}"#,
            r#"{"domain":"a","backends":{"b":1}}"#,
            r#"{"domain":null,"backends":[]}"#,
        ] {
            assert_eq!(read(body), Err(ApiError::Format.to_string()), "{body}");
        }
        let deep = "[".repeat(60_000);
        for body in ["", "{", "nonsense", r#"{"domain":"a","backends":["b"]} x"#, r#""\ud800""#, &deep] {
            assert!(read(body).unwrap_err().starts_with("Invalid JSON"), "{body:.9}");
        }
        assert!(read_mapping(b"\"\xff\"").is_err());
    }

    #[test]
    fn errors_are_json_for_clients_that_name_json() {
        let accepts = |value: &str| accepts_problem(&HeaderMap::from_iter([(ACCEPT, value.parse().unwrap())]));
        for value in
            ["application/json", "text/html, Application/Problem+JSON;q=0.5", "application/json; charset=utf-8"]
        {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "*/*", "text/plain", "application/*", "application/json;q=0", "application/json; q=0.0"] {
            assert!(!accepts(value), "{value}");
        }
        assert!(!accepts_problem(&HeaderMap::new()));
    }

    #[test]
    fn tokens_follow_bearer() {
        let token = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!((token("Bearer abc"), token("bearer  abc ")), (Some("abc".into()), Some("abc".into())));
        assert_eq!((token("Basic abc"), token("Bearer"), bearer(&HeaderMap::new())), (None, None, None));
    }
}
