//! `urlproxy_list`: all tools with a route, in the format of the old stack's `/list`, with the age of the table.

use nginx_sys::{NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, NGX_HTTP_SERVICE_UNAVAILABLE};
use ngx::core::Status;

use super::response::{add_age, add_retry_after};
use crate::nginx::ffi::handler::{Handler, HandlerStatus};
use crate::nginx::ffi::output::Body;
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::timer::unix_seconds;
use crate::route::Kind;
use crate::table::Table;

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
    let Some(conf) = request.location_conf().and_then(|conf| conf.list.as_deref()) else {
        return Status::NGX_ERROR;
    };
    let Some(table) = conf.table.get().filter(|table| table.header().knows(Kind::Tool)) else {
        add_retry_after(request);
        return Status(NGX_HTTP_SERVICE_UNAVAILABLE as isize);
    };
    // Taken before the table is read: changes during the read cannot make the list older.
    let age = table.header().age_seconds(unix_seconds());
    let Ok(mut worker) = conf.worker.try_borrow_mut() else { return Status::NGX_ERROR };
    let body = Body::new(request).and_then(|mut body| {
        write_list(table, &mut worker.scratch, |bytes| body.write(bytes))?;
        Some(body)
    });
    drop(worker);
    let Some(body) = body else { return Status::NGX_ERROR };
    request.set_content(NGX_HTTP_OK, "application/json", body.len());
    if age.is_some_and(|age| add_age(request, age).is_none()) {
        return Status::NGX_ERROR;
    }
    let sent = request.send_header();
    if sent != Status::NGX_OK || request.header_only() { sent } else { body.send() }
}

/// `{"<tool>":{"status":"active"},...}`
fn write_list(
    table: &Table<'_>,
    scratch: &mut crate::table::Scratch,
    mut write: impl FnMut(&[u8]) -> Option<()>,
) -> Option<()> {
    let mut outcome = write(b"{");
    let mut separator: &[u8] = b"";
    table.for_each(scratch, |record| {
        if Kind::of(record.key()) != Kind::Tool {
            return;
        }
        let name = serde_json::to_string(&String::from_utf8_lossy(record.key()));
        outcome = outcome.and_then(|()| {
            write(separator)?;
            write(name.ok()?.as_bytes())?;
            write(br#":{"status":"active"}"#)
        });
        separator = b",";
    });
    outcome?;
    write(b"}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Pattern, Route, RouteKey};
    use crate::table::{Capacity, OwnedTable, Scratch, Writer};

    fn listed(names: &[&str]) -> String {
        let owned = OwnedTable::new(Capacity { buckets: 4, cells: 40, tools: 24, health: 1, ..Capacity::NONE });
        let (mut writer, _) = Writer::attach(owned.table());
        let route = Route { pattern: Pattern::any(), backends: vec!["http://10.0.0.1:1".parse().unwrap()] };
        for name in names {
            writer
                .publish(&RouteKey::try_new(Kind::Tool, name.as_bytes()).unwrap(), std::slice::from_ref(&route))
                .unwrap();
        }
        let mut text = Vec::new();
        write_list(&owned.table(), &mut Scratch::default(), |bytes| {
            text.extend_from_slice(bytes);
            Some(())
        })
        .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn format_matches_the_old_stack() {
        assert_eq!(listed(&[]), "{}");
        assert_eq!(listed(&["hello"]), r#"{"hello":{"status":"active"}}"#);
        assert_eq!(listed(&["a\"b\\"]), r#"{"a\"b\\":{"status":"active"}}"#);
        let two = listed(&["a", "b"]);
        assert!(
            two == r#"{"a":{"status":"active"},"b":{"status":"active"}}"#
                || two == r#"{"b":{"status":"active"},"a":{"status":"active"}}"#
        );
    }
}
