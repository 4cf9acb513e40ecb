//! `urlproxy_admin`: finds the page of a request below the location, and sends it with the headers that all pages share.

use std::rc::Rc;

use nginx_sys::{NGX_HTTP_GET, NGX_HTTP_HEAD};
use ngx::core::Status;

use super::body::TableBody;
use super::explain;
use super::peers::now_seconds;
use crate::admin::about::{About, Build, Guard};
use crate::admin::answer::{Answer, ApiError, COMMON_HEADERS};
use crate::admin::explain::Explanation;
use crate::admin::origin::WithOrigins;
use crate::admin::query::{Query, shown};
use crate::admin::{changes, dashboard, metrics, rejected, routes, status, tool, tools};
use crate::clock;
use crate::nginx::conf::table::TableConf;
use crate::nginx::ffi::handler::{Handler, HandlerStatus};
use crate::nginx::ffi::request::Request;
use crate::table::Table;

/// All pages, by their path below the location. A path that ends in a slash is followed by a name.
const PAGES: &[PageEntry] = &[
    PageEntry::always("/", &[], |_| Ok(Answer::html(dashboard::PAGE, dashboard::POLICY))),
    PageEntry::always("/live", &[], |_| Ok(Answer::text("live\n"))),
    PageEntry::always("/ready", &[], ready),
    PageEntry::always("/metrics", &[], |call| Ok(metrics::metrics(&call.about(), call.table))),
    PageEntry::always("/api/status", &[], |call| Ok(status::status(&call.about(), call.table))),
    PageEntry::always("/api/rejected", &[], |call| Ok(rejected::rejected(&call.about(), call.table))),
    PageEntry::always("/api/changes", changes::PARAMETERS, |call| {
        changes::changes(&call.about(), call.table, &call.query)
    }),
    PageEntry::loaded("/api/tools", tools::PARAMETERS, |call| tools::tools(call.about(), call.table, &call.query)),
    PageEntry::loaded("/api/routes/", tool::PARAMETERS, |call| {
        tool::tool(&call.about(), call.table, &call.query, call.name)
    }),
    PageEntry::loaded("/api/routes", routes::PARAMETERS, |call| {
        routes::routes(&call.conf.name, call.table, &call.query)
    }),
    PageEntry::always("/api/explain", explain::PARAMETERS, |call| {
        let explanation = explain::explain(call.request, &call.about(), call.conf, &call.query)?;
        let tool = explanation.chosen_tool().map(|tool| tool.as_bytes().to_vec());
        let fill = |explanation: &mut Explanation, origins| explanation.add_origins(&origins);
        Ok(Answer::json(WithOrigins::new(call.table, tool.as_deref(), explanation, fill)))
    }),
];

/// A request for a page.
pub(super) struct Call<'c> {
    /// The table of the location.
    pub conf: &'c Rc<TableConf>,
    /// The same table, mapped.
    pub table: &'c Table<'static>,
    /// The parameters: only those that the page knows.
    pub query: Query,
    /// The name that follows a path with a slash at its end.
    pub name: &'c [u8],
    /// The request itself.
    pub request: Request<'c>,
}

impl Call<'_> {
    /// What the pages know about the table.
    fn about(&self) -> About {
        let settings = &self.conf.settings;
        About {
            table: self.conf.name.clone(),
            source: settings.source.to_string(),
            snapshot: settings.snapshot.as_ref().map(|snapshot| snapshot.path.clone()),
            guard: settings.withdrawal_guard.as_ref().map(|guard| Guard {
                hold: guard.hold,
                longest: guard.longest_hold(),
                accept_file: guard.accept.clone(),
            }),
            ready_limits: self.conf.ready_limits.clone(),
            health: self.request.main_conf().map_or_else(Default::default, |main| main.health()),
            build: Build {
                version: env!("CARGO_PKG_VERSION"),
                id: env!("URLPROXY_BUILD_ID"),
                nginx: env!("URLPROXY_NGINX_VERSION").trim_start_matches("nginx/"),
            },
            now: clock::unix_milliseconds(),
            monotonic_seconds: clock::monotonic_seconds(),
            health_seconds: now_seconds(),
        }
    }
}

/// A page: its path, its parameters, and the function that makes it.
struct PageEntry {
    path: &'static str,
    parameters: &'static [&'static str],
    /// Whether the page says nothing before the table is loaded.
    needs_routes: bool,
    answer: fn(&Call<'_>) -> Result<Answer, ApiError>,
}

impl PageEntry {
    /// A page that always answers.
    const fn always(
        path: &'static str,
        parameters: &'static [&'static str],
        answer: fn(&Call<'_>) -> Result<Answer, ApiError>,
    ) -> Self {
        Self { path, parameters, needs_routes: false, answer }
    }

    /// A page that is 503 while the table was never loaded.
    const fn loaded(
        path: &'static str,
        parameters: &'static [&'static str],
        answer: fn(&Call<'_>) -> Result<Answer, ApiError>,
    ) -> Self {
        Self { path, parameters, needs_routes: true, answer }
    }

    /// The name after the page's path, empty for a page without names. `None` if the path is another page's.
    fn name_in<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let rest = path.strip_prefix(self.path.as_bytes())?;
        (rest.is_empty() || self.path.len() > 1 && self.path.ends_with('/')).then_some(rest)
    }
}

/// The content handler of a location with `urlproxy_admin`.
pub(in crate::nginx) struct Admin;

impl Handler for Admin {
    fn handle(request: Request<'_>) -> HandlerStatus {
        let discarded = request.discard_request_body();
        if discarded != Status::NGX_OK {
            return discarded.into();
        }
        respond(request).unwrap_or(Status::NGX_ERROR).into()
    }
}

/// `None` if out of memory.
fn respond(request: Request<'_>) -> Option<Status> {
    let location = request.location_conf()?;
    let conf = location.admin.as_ref()?;
    let table = conf.table.get()?;
    let answer = answer(request, conf, table, &location.admin_prefix).unwrap_or_else(Answer::from);
    request.set_content(answer.status.into(), answer.content_type);
    for (name, value) in COMMON_HEADERS {
        request.add_header_out(name, value.as_bytes())?;
    }
    let policy = [("Content-Security-Policy", answer.policy)];
    for (name, value) in policy.into_iter().chain(answer.headers) {
        request.add_header_out(name, request.pool().copy(value.as_bytes())?)?;
    }
    if let Some(etag) = answer.etag {
        request.set_etag(request.pool().copy(etag.as_bytes())?)?;
    }
    Some(request.stream(Box::new(TableBody::new(answer.page, Rc::clone(conf)))))
}

/// `prefix` is the location's name without a slash at its end.
fn answer<'r>(
    request: Request<'r>,
    conf: &'r Rc<TableConf>,
    table: &'r Table<'static>,
    prefix: &str,
) -> Result<Answer, ApiError> {
    if request.method() & (NGX_HTTP_GET | NGX_HTTP_HEAD) == 0 {
        return Err(ApiError::Method);
    }
    let path = request.path().strip_prefix(prefix.as_bytes()).unwrap_or_default();
    if path.is_empty() {
        // Links of the dashboard are relative.
        let below = format!("{prefix}/");
        return Ok(Answer::text(format!("see {below}\n")).with_status(301).with_header("Location", below));
    }
    let found = PAGES.iter().find_map(|page| Some((page, page.name_in(path)?)));
    let Some((page, name)) = found else {
        let known: Vec<_> = PAGES.iter().map(|page| page.path).collect();
        let text = format!("unknown path {}, expected one of {}", shown(path), known.join(", "));
        return Err(ApiError::NotFound(text));
    };
    let query = Query::parse(request.args(), page.parameters)?;
    if page.needs_routes && !table.header().is_loaded() {
        return Err(ApiError::Unready);
    }
    (page.answer)(&Call { conf, table, query, name, request })
}

fn ready(call: &Call<'_>) -> Result<Answer, ApiError> {
    Ok(call.about().readiness(call.table.header()).answer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_path() {
        // Without a symbol of nginx, which unit tests cannot link.
        let page: fn(&Call<'_>) -> Result<Answer, ApiError> = |_| Ok(Answer::text("page\n"));
        let named = PageEntry::always("/api/routes/", &[], page);
        let plain = PageEntry::always("/api/routes", &[], page);
        let root = PageEntry::always("/", &[], page);
        assert_eq!(named.name_in(b"/api/routes/a b"), Some(&b"a b"[..]));
        assert_eq!(named.name_in(b"/api/routes/"), Some(&b""[..]));
        assert_eq!(named.name_in(b"/api/routes"), None);
        assert_eq!(plain.name_in(b"/api/routes"), Some(&b""[..]));
        assert_eq!((plain.name_in(b"/api/routes/x"), plain.name_in(b"/api/routesx")), (None, None));
        assert_eq!((root.name_in(b"/"), root.name_in(b"/x")), (Some(&b""[..]), None));
    }
}
