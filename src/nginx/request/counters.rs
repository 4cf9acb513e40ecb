//! The log phase: counts the finished request for its tool.

use ngx::core::Status;

use crate::nginx::ffi::handler::{Handler, HandlerStatus};
use crate::nginx::ffi::request::Request;
use crate::table::StatusClass;

/// The log phase handler.
pub(in crate::nginx) struct CountRequest;

impl Handler for CountRequest {
    const ON_PANIC: Status = Status::NGX_OK;

    fn handle(request: Request<'_>) -> HandlerStatus {
        if let Some((counters, ticket)) = request.stored_context().and_then(|route| route.counters) {
            let class = StatusClass::of(request.status());
            counters.add(ticket, class, request.bytes_sent(), request.elapsed_milliseconds());
        }
        Status::NGX_OK.into()
    }
}
