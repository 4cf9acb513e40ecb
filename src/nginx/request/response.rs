//! Response headers that several handlers add.

use crate::nginx::ffi::request::Request;

/// Seconds until the client should retry while the table is not loaded.
const RETRY_AFTER: &[u8] = b"1";

/// Adds `Retry-After`, unless the response has it already: an error page keeps the header of the failed request.
pub(super) fn add_retry_after(request: Request<'_>) {
    const NAME: &str = "Retry-After";
    if !request.has_header_out(NAME) {
        // Out of memory, the response goes without it.
        let _ = request.add_header_out(NAME, RETRY_AFTER);
    }
}

/// Adds `Age` in seconds (RFC 9111, section 5.1); nginx itself never adds it. `None` if out of memory.
pub(super) fn add_age(request: Request<'_>, seconds: u64) -> Option<()> {
    let value = request.pool().copy(seconds.to_string().as_bytes())?;
    request.add_header_out("Age", value)
}
