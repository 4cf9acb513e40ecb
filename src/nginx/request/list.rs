//! `urlproxy_list`: all tools with a route, in the format of the old stack's `/list`, with the age of the table.

use std::rc::Rc;

use nginx_sys::{NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, NGX_HTTP_SERVICE_UNAVAILABLE};
use ngx::core::Status;

use super::body::TableBody;
use super::response::{add_age, add_retry_after};
use crate::admin::list::ListPage;
use crate::nginx::ffi::handler::{Handler, HandlerStatus};
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::timer::unix_seconds;
use crate::route::Kind;

/// The content handler of a location with `urlproxy_list`.
pub(in crate::nginx) struct List;

impl Handler for List {
    fn handle(request: Request<'_>) -> HandlerStatus {
        answer(request).into()
    }
}

fn answer(request: Request<'_>) -> Status {
    if request.method() & (NGX_HTTP_GET | NGX_HTTP_HEAD) == 0 {
        return Status(NGX_HTTP_NOT_ALLOWED as isize);
    }
    let discarded = request.discard_request_body();
    if discarded != Status::NGX_OK {
        return discarded;
    }
    let Some(conf) = request.location_conf().and_then(|conf| conf.list.as_ref()) else {
        return Status::NGX_ERROR;
    };
    let Some(table) = conf.table.get().filter(|table| table.header().knows(Kind::Tool)) else {
        add_retry_after(request);
        return Status(NGX_HTTP_SERVICE_UNAVAILABLE as isize);
    };
    // Taken before the table is read: changes during the read cannot make the list older.
    let age = table.header().age_seconds(unix_seconds());
    request.set_content(NGX_HTTP_OK, "application/json");
    if age.is_some_and(|age| add_age(request, age).is_none()) {
        return Status::NGX_ERROR;
    }
    request.stream(Box::new(TableBody::new(ListPage::default(), Rc::clone(conf))))
}
