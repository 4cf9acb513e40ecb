//! The route table as a library: publish two tools, look one up, withdraw it, and read while another thread writes.
//!
//! `cargo run --example table --no-default-features`

use std::{error::Error, thread};

use urlproxy::route::{Kind, Pattern, Route, RouteKey};
use urlproxy::table::{Capacity, Lookup, OwnedTable, Scratch, Table, Writer};

fn publish(writer: &mut Writer<'_>, tool: &str, url: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let route = Route { pattern: Pattern::any(), backends: vec![url.parse()?] };
    println!("{tool}: {:?}", writer.publish(&RouteKey::try_new(Kind::Tool, tool.as_bytes())?, &[route])?);
    Ok(())
}

fn backend_of(table: Table<'_>, tool: &str, scratch: &mut Scratch) -> Option<String> {
    let Lookup::Found(record) = table.lookup(tool.as_bytes(), scratch) else { return None };
    Some(record.select(b"/path")?.first_backend()?.to_string())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let owned = OwnedTable::new(Capacity::of_bytes(1 << 20)?);
    let (table, mut writer, mut scratch) = (owned.table(), Writer::attach(owned.table()).0, Scratch::default());
    publish(&mut writer, "hello", "http://10.0.0.1:8000")?;
    publish(&mut writer, "wiki", "https://10.0.0.2:443")?;
    println!("wiki is at {:?}", backend_of(table, "wiki", &mut scratch));
    println!("withdrawn: {}, now at {:?}", writer.withdraw(b"wiki"), backend_of(table, "wiki", &mut scratch));
    thread::scope(|scope| {
        let writing =
            scope.spawn(move || (1..=5).try_for_each(|n| publish(&mut writer, "hello", &format!("http://h:{n}"))));
        // Readers never wait for the writer: each lookup returns the record as of some moment during the call.
        let lookups = (0u64..).take_while(|_| !writing.is_finished());
        let lookups = lookups.inspect(|_| assert!(backend_of(table, "hello", &mut scratch).is_some()));
        println!("{} successful lookups during five changes", lookups.count());
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
