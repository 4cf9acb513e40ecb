//! `/api/routes`: all records of the table, or some of them, in the order of the table.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;

use super::answer::{Answer, ApiError};
use super::json;
use super::page::{CHUNK_BYTES, Page, Scan, Step};
use super::query::{Query, shown};
use crate::route::{Kind, LookupKey};
use crate::table::{Lookup, Record, RouteView, Scratch, Table};

/// The parameters.
pub const PARAMETERS: &[&str] = &["kind", "tool", "limit", "cursor"];

/// The records that a request asks for.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Selection {
    kind: Option<Kind>,
    /// Only the records of this tool.
    tool: Option<Vec<u8>>,
    limit: Option<usize>,
    /// The first slot.
    start: usize,
}

impl Selection {
    fn try_new(query: &Query, table: &Table<'_>) -> Result<Self, ApiError> {
        let kinds = Kind::ALL.map(|kind| (kind.as_str(), kind));
        let start = match query.get("cursor") {
            Some(text) => parse_cursor(text, table)?,
            None => 0,
        };
        let limit = query.positive("limit", usize::MAX)?;
        let tool = query.get("tool").map(<[u8]>::to_vec);
        if tool.is_some() && (limit.is_some() || start > 0) {
            let text = "\"tool\" does not combine with \"limit\" and \"cursor\", expected one or the other";
            return Err(ApiError::BadRequest(text.into()));
        }
        Ok(Self { kind: query.choice("kind", &kinds)?, tool, limit, start })
    }

    fn admits(&self, record: &Record<'_>) -> bool {
        self.kind.is_none_or(|kind| kind == Kind::of(record.key()))
    }

    /// The keys of the tool's records.
    fn keys(&self) -> Option<impl Iterator<Item = LookupKey<'_>>> {
        let tool = self.tool.as_deref()?;
        Some([Some(LookupKey::tool(tool)), LookupKey::redirect(tool)].into_iter().flatten())
    }

    /// Differs between tables, and after each change of the table. Weak: a change during the response may be part of it.
    fn etag(&self, name: &str, table: &Table<'_>, generation: u64) -> String {
        let mut hasher = DefaultHasher::new();
        (self, name).hash(&mut hasher);
        format!("W/\"{:x}-{generation}-{:x}\"", table.pseudonym(), hasher.finish())
    }
}

/// A cursor names a slot of one table: after the zone has changed its size, the slots are others.
fn cursor(slot: usize, table: &Table<'_>) -> String {
    format!("{slot}-{:08x}", table.pseudonym() as u32)
}

fn parse_cursor(text: &[u8], table: &Table<'_>) -> Result<usize, ApiError> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.split_once('-'));
    let slot = parsed.and_then(|(slot, _)| slot.parse().ok()).filter(|&slot| cursor(slot, table).as_bytes() == text);
    slot.filter(|&slot| slot < table.slots()).ok_or_else(|| {
        let expected = "\"next\" of an earlier answer from this table; without a cursor, the list starts again";
        ApiError::BadRequest(format!("invalid cursor {}, expected {expected}", shown(text)))
    })
}

/// The answer for a table of this name.
///
/// # Errors
/// An invalid parameter.
pub fn routes(name: &str, table: &Table<'_>, query: &Query) -> Result<Answer, ApiError> {
    let selection = Selection::try_new(query, table)?;
    // Read before the records: what changes meanwhile has a higher generation.
    let generation = table.header().changes();
    let etag = selection.etag(name, table, generation);
    let mut head = Vec::new();
    head.extend_from_slice(b"{\"table\":");
    json::string(&mut head, name.as_bytes());
    head.extend_from_slice(format!(",\"generation\":{generation},\"items\":[").as_bytes());
    let scan = Scan::starting_at(selection.start);
    Ok(Answer::json(RoutesPage { left: selection.limit, selection, head, scan, has_items: false }).with_etag(etag))
}

struct RoutesPage {
    selection: Selection,
    /// The text before the items, until it is written.
    head: Vec<u8>,
    scan: Scan,
    /// Items until the limit.
    left: Option<usize>,
    has_items: bool,
}

impl Page for RoutesPage {
    fn step(&mut self, table: &Table<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Step {
        out.append(&mut self.head);
        let Self { selection, left, has_items, .. } = self;
        let mut write = |record: &Record<'_>, out: &mut Vec<u8>| {
            if std::mem::replace(has_items, true) {
                out.push(b',');
            }
            item(record, out);
        };
        if let Some(keys) = selection.keys() {
            for key in keys {
                if let Lookup::Found(record) = table.lookup(key, scratch)
                    && selection.admits(&record)
                {
                    write(&record, out);
                }
            }
            out.extend_from_slice(b"],\"next\":null}");
            return Step::Done;
        }
        let mut next = None;
        let step = self.scan.step(table, scratch, |record| {
            if !selection.admits(&record) {
                return ControlFlow::Continue(());
            }
            if *left == Some(0) {
                // The first record beyond the page.
                next = Some(());
                return ControlFlow::Break(());
            }
            *left = left.map(|left| left - 1);
            write(&record, out);
            if out.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match next {
            Some(()) => {
                let text = cursor(self.scan.position() - 1, table);
                out.extend_from_slice(format!("],\"next\":\"{text}\"}}").as_bytes());
                Step::Done
            }
            None if step == Step::Done => {
                out.extend_from_slice(b"],\"next\":null}");
                Step::Done
            }
            None => Step::More,
        }
    }
}

/// `{"kind":"tool","name":"hello","routes":[...]}`; a redirect has no routes.
fn item(record: &Record<'_>, out: &mut Vec<u8>) {
    let (kind, name) = Kind::split(record.key());
    out.extend_from_slice(b"{\"kind\":");
    json::string(out, kind.as_str().as_bytes());
    out.extend_from_slice(b",\"name\":");
    json::string(out, name);
    if kind != Kind::Redirect {
        out.extend_from_slice(b",\"routes\":");
        json::list(out, record.routes(), |out, route| write_route(out, &route));
    }
    out.push(b'}');
}

/// `{"pattern":".*","backends":["http://10.0.0.1:8000"]}`
fn write_route(out: &mut Vec<u8>, route: &RouteView<'_>) {
    out.extend_from_slice(b"{\"pattern\":");
    json::string(out, route.pattern);
    out.extend_from_slice(b",\"backends\":");
    json::list(out, route.backends(), |out, backend| json::display(out, &backend));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::admin::testing::{TestTable, body};

    fn asked(table: &TestTable, args: &str) -> Result<(String, Value), String> {
        let query = Query::parse(args.as_bytes(), PARAMETERS).map_err(|error| error.to_string())?;
        let answer = routes("tools", &table.table(), &query).map_err(|error| error.to_string())?;
        let etag = answer.etag.clone().unwrap();
        Ok((etag, serde_json::from_str(&body(table, answer.page)).unwrap()))
    }

    fn filled() -> TestTable {
        let table = TestTable::new(10);
        table.publish(Kind::Tool, "hello", &[(".*", &["http://10.0.0.1:8000"])]);
        table.publish(Kind::Redirect, "hello", &[]);
        table.publish(
            Kind::Tool,
            "a\"<b>",
            &[("/x", &["http://10.0.0.2:1", "https://[::1]:2"]), (".*", &["http://n:3"])],
        );
        table.publish(Kind::Domain, "*.example.org", &[(".*", &["http://10.0.0.1:80"])]);
        table
    }

    #[test]
    fn every_kind_of_record_is_written() {
        let (_, body) = asked(&filled(), "").unwrap();
        let mut items = body["items"].as_array().unwrap().clone();
        items.sort_by_key(|item| item.to_string());
        let want = json!([
            {"kind": "domain", "name": "*.example.org", "routes": [{"pattern": ".*", "backends": ["http://10.0.0.1:80"]}]},
            {"kind": "redirect", "name": "hello"},
            {"kind": "tool", "name": "a\"<b>", "routes": [
                {"pattern": "/x", "backends": ["http://10.0.0.2:1", "https://[::1]:2"]},
                {"pattern": ".*", "backends": ["http://n:3"]}]},
            {"kind": "tool", "name": "hello", "routes": [{"pattern": ".*", "backends": ["http://10.0.0.1:8000"]}]},
        ]);
        assert_eq!(Value::Array(items), want);
        assert_eq!((&body["table"], &body["generation"], &body["next"]), (&json!("tools"), &json!(4), &Value::Null));
    }

    #[test]
    fn filters_select_records() {
        let table = filled();
        let names = |args: &str| {
            let (_, body) = asked(&table, args).unwrap();
            let text = |item: &Value| format!("{} {}", item["kind"].as_str().unwrap(), item["name"].as_str().unwrap());
            body["items"].as_array().unwrap().iter().map(text).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(names("kind=redirect"), ["redirect hello"]);
        assert_eq!(names("kind=domain"), ["domain *.example.org"]);
        assert_eq!(names("kind=tool"), ["tool a\"<b>", "tool hello"]);
        assert_eq!(names("tool=hello"), ["redirect hello", "tool hello"]);
        assert_eq!(names("tool=hello&kind=tool"), ["tool hello"]);
        assert_eq!(names("tool=a%22%3Cb%3E"), ["tool a\"<b>"]);
        assert!(names("tool=none").is_empty());
        assert!(names(&format!("tool={}", "x".repeat(1000))).is_empty());
    }

    #[test]
    fn pages_together_have_each_record_once() {
        let table = TestTable::new(3000);
        for number in 0..3000 {
            let routes: &[(&str, &[&str])] = &[(".*", &["http://10.0.0.1:80"])];
            table.publish(if number % 3 == 0 { Kind::Domain } else { Kind::Tool }, &format!("name-{number}"), routes);
        }
        for (filter, limit, want) in
            [("", 7, 3000usize), ("&kind=domain", 100, 1000), ("&kind=tool", 1, 2000), ("", 3000, 3000)]
        {
            let (mut seen, mut pages, mut args) = (BTreeSet::new(), 0, format!("limit={limit}{filter}"));
            loop {
                let (_, body) = asked(&table, &args).unwrap();
                let items = body["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                assert!(items.iter().all(|item| seen.insert(item["name"].as_str().unwrap().to_owned())), "{args}");
                pages += 1;
                let Some(next) = body["next"].as_str() else { break };
                args = format!("limit={limit}{filter}&cursor={next}");
            }
            assert_eq!((seen.len(), pages), (want, want.div_ceil(limit)), "limit={limit}{filter}");
        }
    }

    #[test]
    fn etag_changes_with_table_and_query() {
        let table = filled();
        let etag = |args: &str| asked(&table, args).unwrap().0;
        let first = etag("limit=2");
        assert_eq!(etag("limit=2"), first);
        assert!(first.starts_with("W/\"") && etag("limit=3") != first && etag("kind=tool") != etag(""));
        table.publish(Kind::Tool, "new", &[(".*", &["http://10.0.0.1:80"])]);
        assert_ne!(etag("limit=2"), first);
    }

    #[test]
    fn bad_parameters_are_named() {
        let table = filled();
        for (args, want) in [
            ("kind=host", r#"invalid kind "host", expected one of tool, redirect, domain"#),
            ("limit=0", r#"invalid limit "0", expected a number from 1 on"#),
            ("x=1", r#"unknown parameter "x", expected one of kind, tool, limit, cursor"#),
        ] {
            assert_eq!(asked(&table, args).unwrap_err(), want, "{args}");
        }
        for cursor in ["", "0", "1-00000000", "-1", "x", "99999999999-00000000"] {
            let error = asked(&table, &format!("cursor={cursor}")).unwrap_err();
            assert!(error.starts_with(&format!("invalid cursor \"{cursor}\", expected \"next\" of")), "{error}");
        }
        assert!(asked(&table, "tool=hello&limit=1").unwrap_err().contains("does not combine"));
    }

    #[test]
    fn largest_records_make_bounded_chunks() {
        // Large enough for records of 20 KiB.
        let table = TestTable::new(7000);
        let backends: Vec<_> = (0..64).map(|port| format!("http://255.255.255.255:{}", 60000 + port)).collect();
        let backends: Vec<_> = backends.iter().map(String::as_str).collect();
        let patterns: Vec<_> = (0..32).map(|number| format!("/{number}")).collect();
        let routes: Vec<_> = patterns.iter().map(|pattern| (pattern.as_str(), &backends[..])).collect();
        (0..20).for_each(|number| table.publish(Kind::Tool, &format!("large-{number}"), &routes));
        // `body` checks the size of each chunk.
        let (_, body) = asked(&table, "").unwrap();
        assert_eq!(body["items"].as_array().unwrap().len(), 20);
    }
}
