//! Answers over HTTP.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};

/// An answer whose body is there as a whole.
pub type HttpResponse = Response<Full<Bytes>>;

/// The type of a body that is text.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// An answer of status 200 with a body of this type.
pub fn response_with(content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
