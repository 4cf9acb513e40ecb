//! `/api/rejected`: routes of the source that the table does not have, and why.

use serde::Serialize;

use super::about::About;
use super::answer::Answer;
use crate::route::Kind;
use crate::table::{REASONS, Table};

#[derive(Serialize)]
struct Rejected<'a> {
    table: &'a str,
    total: u64,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    key: String,
    kind: Kind,
    name: String,
    /// Null for the whole key.
    pattern: Option<String>,
    reason: &'static str,
    text: String,
}

/// The answer for a table.
pub fn rejected(about: &About, table: &Table<'_>) -> Answer {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let item = |note: crate::table::RejectedNote| Item {
        key: format!("{}{}", prefix(note.kind), text(&note.name)),
        kind: note.kind,
        name: text(&note.name),
        pattern: note.pattern.as_deref().map(text),
        reason: reason(note.reason),
        text: note.text,
    };
    let items = table.notes().rejected().map(item).collect();
    Answer::json_value(&Rejected { table: &about.table, total: table.header().rejected(), items })
}

/// The label of a reason.
pub fn reason(number: u8) -> &'static str {
    REASONS.get(usize::from(number)).copied().unwrap_or("other")
}

/// The prefix of a kind's keys in Redis.
fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => "prefix:",
        Kind::Redirect => "redirect:",
        Kind::Domain => "frontend:",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admin::testing::{TestTable, about, body};
    use crate::registry::prefix_of;
    use crate::table::RejectedNote;

    #[test]
    fn each_rejected_route_is_listed_with_its_key() {
        let table = TestTable::new(10);
        for (at, (kind, name)) in [(Kind::Domain, "a.org"), (Kind::Tool, "a\u{1b}\"<")].into_iter().enumerate() {
            let (name, pattern) = (name.as_bytes().to_vec(), (at == 1).then(|| vec![0xff]));
            let note = RejectedNote { kind, name, pattern, reason: 2, text: "no scheme".into() };
            table.table().notes().set_rejected(at, Some(&note));
        }
        let shown: Value = serde_json::from_str(&body(&table, rejected(&about(0), &table.table()).page)).unwrap();
        let want = json!([
            {"key": "frontend:a.org", "kind": "domain", "name": "a.org", "pattern": null, "reason": "backend", "text": "no scheme"},
            {"key": "prefix:a\u{1b}\"<", "kind": "tool", "name": "a\u{1b}\"<", "pattern": "\u{fffd}", "reason": "backend",
             "text": "no scheme"},
        ]);
        assert_eq!(shown["items"], want);
    }

    #[test]
    fn prefixes_are_those_of_the_registry() {
        assert_eq!(Kind::ALL.map(prefix), Kind::ALL.map(prefix_of));
    }
}
