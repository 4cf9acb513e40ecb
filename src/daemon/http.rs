//! HTTP responses.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};

/// A response with a complete body.
pub type HttpResponse = Response<Full<Bytes>>;

/// `Content-Type` of plain text.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// Status 200 with this `Content-Type` and body.
pub fn response_with(content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
