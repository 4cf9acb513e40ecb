//! `/list`: all tools with a route, `{"<tool>":{"status":"active"},...}`, byte for byte as the old stack wrote it.

use super::json;
use super::page::{Page, Scan, Step, unless_full};
use crate::route::Kind;
use crate::table::{Scratch, Table};

/// The list.
#[derive(Debug, Default)]
pub struct ListPage {
    scan: Scan,
    has_tools: bool,
}

impl Page for ListPage {
    fn step(&mut self, table: &Table<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Step {
        if self.scan.position() == 0 {
            out.push(b'{');
        }
        let has_tools = &mut self.has_tools;
        let step = self.scan.step(table, scratch, |record| {
            if Kind::of(record.key()) == Kind::Tool {
                if std::mem::replace(has_tools, true) {
                    out.push(b',');
                }
                json::string(out, record.key());
                out.extend_from_slice(br#":{"status":"active"}"#);
            }
            unless_full(out)
        });
        if step == Step::Done {
            out.push(b'}');
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{TestTable, body};

    fn listed(names: &[&str]) -> String {
        let table = TestTable::new(names.len());
        names.iter().for_each(|name| table.publish(Kind::Tool, name, &[(".*", &["http://10.0.0.1:1"])]));
        body(&table, ListPage::default())
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

    #[test]
    fn each_of_many_tools_is_listed_once() {
        let names: Vec<_> = (0..5000).map(|number| format!("tool-{number}")).collect();
        let text = listed(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let list: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
        assert_eq!((list.len(), text.matches("\":{").count()), (5000, 5000));
        assert!(names.iter().all(|name| list.contains_key(name)));
    }
}
