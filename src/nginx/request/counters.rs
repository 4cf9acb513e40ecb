//! The log phase: counts the finished request for its tool.

use ngx::core::Status;

use crate::nginx::ffi::handler::{Handler, HandlerStatus};
use crate::nginx::ffi::process;
use crate::nginx::ffi::request::Request;
use crate::table::{Finished, StatusClass};

/// The log phase handler.
pub(in crate::nginx) struct CountRequest;

impl Handler for CountRequest {
    const ON_PANIC: Status = Status::NGX_OK;

    fn handle(request: Request<'_>) -> HandlerStatus {
        if let Some(route) = request.stored_context()
            && let Some(table) = route.table.table.get()
        {
            let finished = Finished {
                result: route.outcome.result(),
                class: StatusClass::of(request.status()),
                bytes: request.bytes_sent(),
                milliseconds: request.elapsed_milliseconds(),
            };
            table.count_request(process::number(), &finished, route.counters);
        }
        Status::NGX_OK.into()
    }
}
