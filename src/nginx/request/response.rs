//! Header lines that several answers have.

use crate::nginx::ffi::request::Request;

/// Seconds a client is asked to wait for the first load.
const RETRY_AFTER: &[u8] = b"1";

/// Asks the client to come again, unless an earlier answer to the request does: an error page keeps that one's header.
pub(super) fn add_retry_after(request: Request<'_>) {
    const NAME: &str = "Retry-After";
    if !request.has_header_out(NAME) {
        // Without memory the answer goes without it.
        let _ = request.add_header_out(NAME, RETRY_AFTER);
    }
}

/// Says how many seconds old the answer is (RFC 9111, section 5.1). Nothing of nginx's has said so before. `None` when memory
/// has run out.
pub(super) fn add_age(request: Request<'_>, seconds: u64) -> Option<()> {
    let value = request.pool().copy(seconds.to_string().as_bytes())?;
    request.add_header_out("Age", value)
}
