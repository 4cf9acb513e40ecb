//! `list`: the records of the table.

use serde_json::json;

use crate::ctl::admin_client::AdminClient;
use crate::ctl::api::RouteItem;
use crate::ctl::console::Console;
use crate::ctl::options::ListOptions;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::text_table::{Cell, TextTable};
use crate::route::Kind;

/// Prints the records that match; negative if there are none.
pub async fn run(admin: &AdminClient, console: &mut Console, options: &ListOptions) -> Result<Answer, CtlError> {
    let search = options.search.as_ref().map(|text| text.to_ascii_lowercase());
    let kind = options.kind.map(Kind::from);
    let limit = options.limit.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let mut table = String::new();
    let parameter = kind.map(|kind| ("kind", kind.as_str()));
    admin
        .routes(parameter.as_slice(), |page| {
            let is_wanted = |item: &RouteItem| {
                kind.is_none_or(|kind| kind == item.kind)
                    && search.as_ref().is_none_or(|text| item.name.to_ascii_lowercase().contains(text))
            };
            table = page.table;
            found.extend(page.items.into_iter().filter(is_wanted));
        })
        .await?;
    found.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    found.truncate(limit);
    if console.is_json {
        console.json(&json!({"table": table, "items": found}))?;
    } else if !found.is_empty() {
        console.table(&text_table(&found))?;
    }
    Ok(Answer::positive_if(!found.is_empty()))
}

/// The records as a table, one row for each route.
pub fn text_table(items: &[RouteItem]) -> TextTable {
    let mut table = TextTable::new(&["KIND", "NAME", "PATTERN", "BACKENDS"]);
    for RouteItem { kind, name, routes } in items {
        if routes.is_empty() {
            table.add([Cell::text(kind.as_str()), Cell::text(name), Cell::text("-"), Cell::text("-")]);
        }
        for route in routes {
            let cells = [kind.as_str(), name, &route.pattern, &route.backends.join(" ")];
            table.add(cells.map(Cell::text));
        }
    }
    table
}
