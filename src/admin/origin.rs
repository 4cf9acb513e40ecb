//! A page that waits for the companion to look up who registered a tool's routes.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::json;
use super::page::{Page, Step};
use crate::clock;
use crate::table::{Reply, Scratch, Table, Ticket};

/// Time after which the page goes without the answer. The companion looks for questions ten times a second.
const PATIENCE: Duration = Duration::from_millis(1000);

/// The origins of a tool's routes, by pattern.
pub type Origins = Map<String, Value>;

/// JSON that `fill` completes with origins, if there are any.
pub struct WithOrigins<T> {
    value: T,
    fill: fn(&mut T, Origins),
    question: Option<(Ticket, Instant)>,
}

impl<T: Serialize> WithOrigins<T> {
    /// A page that asks about this tool; without a tool, or while no companion answers, it asks nothing.
    pub fn new(table: &Table<'_>, tool: Option<&[u8]>, value: T, fill: fn(&mut T, Origins)) -> Self {
        let tool = tool.filter(|_| table.source().read().is_connected);
        let ticket = tool.and_then(|tool| table.questions().ask(tool, clock::unix_milliseconds()));
        Self { value, fill, question: ticket.map(|ticket| (ticket, Instant::now() + PATIENCE)) }
    }
}

impl<T: Serialize> Page for WithOrigins<T> {
    fn step(&mut self, table: &Table<'_>, _: &mut Scratch, out: &mut Vec<u8>) -> Step {
        if let Some((ticket, deadline)) = self.question {
            match table.questions().reply(ticket) {
                Reply::Pending if Instant::now() < deadline => return Step::Pause,
                Reply::Pending => table.questions().forget(ticket),
                Reply::Answered(text) => {
                    if let Ok(origins) = serde_json::from_slice(&text) {
                        (self.fill)(&mut self.value, origins);
                    }
                }
                Reply::Lost => {}
            }
        }
        json::value(out, &self.value);
        Step::Done
    }

    fn release(&mut self, table: &Table<'_>) {
        if let Some((ticket, _)) = self.question.take() {
            table.questions().forget(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::TestTable;

    #[derive(Serialize)]
    struct Shown {
        origins: Option<Origins>,
    }

    fn page(table: &TestTable, tool: Option<&[u8]>) -> WithOrigins<Shown> {
        WithOrigins::new(&table.table(), tool, Shown { origins: None }, |shown, origins| shown.origins = Some(origins))
    }

    fn step(table: &TestTable, page: &mut WithOrigins<Shown>) -> (Step, String) {
        let mut out = Vec::new();
        let step = page.step(&table.table(), &mut Scratch::default(), &mut out);
        (step, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_page_waits_for_the_answer() {
        let table = TestTable::new(10);
        let unknown = (Step::Done, r#"{"origins":null}"#.to_owned());
        assert_eq!(step(&table, &mut page(&table, Some(b"a"))), unknown, "no companion");
        table.table().source().set_connected(true, 1);
        assert_eq!(step(&table, &mut page(&table, None)), unknown, "no tool");
        let mut asked = page(&table, Some(b"a"));
        assert_eq!(step(&table, &mut asked), (Step::Pause, String::new()));
        let (ticket, name) = table.table().questions().open().next().unwrap();
        assert_eq!(name, b"a");
        table.table().questions().answer(ticket, br#"{".*":{"owner":"p.a"}}"#);
        assert_eq!(step(&table, &mut asked), (Step::Done, r#"{"origins":{".*":{"owner":"p.a"}}}"#.to_owned()));
    }

    #[test]
    fn the_page_goes_without_an_answer_after_a_while() {
        let table = TestTable::new(10);
        table.table().source().set_connected(true, 1);
        let mut asked = page(&table, Some(b"a"));
        asked.question = asked.question.map(|(ticket, _)| (ticket, Instant::now()));
        assert_eq!(step(&table, &mut asked), (Step::Done, r#"{"origins":null}"#.to_owned()));
        assert_eq!(table.table().questions().open().count(), 0, "forgotten");
    }

    #[test]
    fn questions_of_clients_that_went_away_are_free_at_once() {
        let table = TestTable::new(10);
        table.table().source().set_connected(true, 1);
        let most = table.table().capacity().questions;
        for round in 0..3 {
            let mut asked: Vec<_> = (0..most).map(|_| page(&table, Some(b"a"))).collect();
            assert_eq!(table.table().questions().open().count(), most, "{round}");
            asked.iter_mut().for_each(|page| page.release(&table.table()));
        }
    }
}
