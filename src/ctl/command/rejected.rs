//! `rejected`: routes that nginx does not serve.

use crate::ctl::admin_client::AdminClient;
use crate::ctl::api::RejectedList;
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::text_table::{Cell, TextTable};
use crate::text::counted;

/// Prints rejected routes with reasons; negative if there are any.
pub async fn run(admin: &AdminClient, console: &mut Console) -> Result<Answer, CtlError> {
    let path = "api/rejected";
    let value = admin.get(path, &[]).await?;
    let list: RejectedList = admin.read(path, value.clone())?;
    if console.is_json {
        console.json(&value)?;
        return Ok(Answer::positive_if(list.total == 0));
    }
    let table = text_table(&list);
    if !table.is_empty() {
        console.table(&table)?;
    }
    let listed = list.items.len() as u64;
    if list.total > listed {
        console.line(format_args!("and {} that nginx does not list", counted(list.total - listed, "route")))?;
    }
    Ok(Answer::positive_if(list.total == 0))
}

/// The routes as a table.
pub fn text_table(list: &RejectedList) -> TextTable {
    let mut table = TextTable::new(&["KEY", "PATTERN", "REASON", "WHY"]);
    for item in &list.items {
        let pattern = item.pattern.as_deref().unwrap_or("-");
        table.add([&item.key, pattern, &item.reason, &item.text].map(Cell::text));
    }
    table
}
