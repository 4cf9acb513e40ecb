//! `/api/changes`: the latest changes of the table.

use serde::Serialize;

use super::about::{About, seconds};
use super::answer::{Answer, ApiError};
use super::query::Query;
use crate::route::Kind;
use crate::table::{Change, Table};

/// The parameters.
pub const PARAMETERS: &[&str] = &["after", "limit"];
/// Changes in one answer, unless asked for fewer.
const LIMIT: usize = 1000;

#[derive(Serialize)]
struct Changes<'a> {
    table: &'a str,
    now: f64,
    /// The number of the latest change, for the next `after`.
    last: u64,
    items: Vec<Item>,
    /// Changes after `after` that are no longer kept.
    missed: u64,
}

#[derive(Serialize)]
struct Item {
    seq: u64,
    at: f64,
    change: &'static str,
    kind: Kind,
    name: String,
    routes: u32,
    backend: String,
}

/// The answer for a table: changes after `after`, oldest first; without it, or if `after` is of another table, the latest ones.
///
/// # Errors
/// An invalid parameter.
pub fn changes(about: &About, table: &Table<'_>, query: &Query) -> Result<Answer, ApiError> {
    let limit = query.positive("limit", LIMIT)?.unwrap_or(LIMIT) as u64;
    let after: Option<u64> = query.parsed("after", "the number of a change", |value| value.parse().ok())?;
    // Damaged memory may have any number.
    let last = table.source().read().changes.min(u64::MAX - 1);
    let after = after.filter(|&after| after <= last);
    let first = match after {
        Some(after) => after + 1,
        None => (last + 1).saturating_sub(limit).max(1),
    };
    let kept = (last + 1).saturating_sub(table.notes().changes_capacity()).max(1).max(first);
    let last = last.min(kept.saturating_add(limit - 1));
    let items: Vec<Item> = (kept..=last).filter_map(|number| table.notes().change(number)).map(item).collect();
    let missed = if after.is_some() { (last + 1).saturating_sub(first).saturating_sub(items.len() as u64) } else { 0 };
    Ok(Answer::json_value(&Changes { table: &about.table, now: about.now_seconds(), last, items, missed }))
}

fn item(change: Change) -> Item {
    Item {
        seq: change.number,
        at: seconds(change.at),
        change: change.change.as_str(),
        kind: change.kind,
        name: String::from_utf8_lossy(&change.name).into_owned(),
        routes: change.routes,
        backend: change.backend,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::admin::testing::{NOTES, TestTable, about, body};
    use crate::table::ChangeKind;

    #[test]
    fn changes_follow_a_number_and_missed_ones_are_counted() {
        let table = TestTable::new(10);
        let kept = table.table().notes().changes_capacity();
        assert!(kept > 3 && kept < NOTES as u64);
        let asked = |args: &str| {
            let query = Query::parse(args.as_bytes(), PARAMETERS).unwrap();
            let answer = changes(&about(5000), &table.table(), &query).unwrap();
            let shown: Value = serde_json::from_str(&body(&table, answer.page)).unwrap();
            let numbers = shown["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap());
            (numbers.collect::<Vec<_>>(), shown["last"].as_u64().unwrap(), shown["missed"].as_u64().unwrap())
        };
        assert_eq!(asked(""), (vec![], 0, 0));
        let total = kept + 5;
        for number in 1..=total {
            let (kind, name, backend) = (Kind::Tool, b"a".to_vec(), String::new());
            let change = Change { number, at: 1, change: ChangeKind::Added, kind, name, routes: 1, backend };
            table.table().notes().add_change(&change);
            table.table().source().set_changes(number);
        }
        assert_eq!(asked("after=0"), ((6..=total).collect(), total, 5));
        assert_eq!(asked(&format!("after={}", total - 2)), (vec![total - 1, total], total, 0));
        assert_eq!(asked("limit=2"), (vec![total - 1, total], total, 0));
        assert_eq!(asked("after=6&limit=2"), (vec![7, 8], 8, 0));
        assert_eq!(asked(&format!("after={total}")), (vec![], total, 0));
        assert_eq!(asked("after=99999&limit=1"), (vec![total], total, 0), "of another table");
    }
}
